// Sends requests by HTTP/2 without a retry, many at a time, to the port that the last line of stdin names, and tells of
// each that fails on which connection and stream. nghttp2, which is in Node, is in curl, grpc-js and others too.
const http2 = require("http2");

let port, session, ended = false, answered = 0, running = 0;

function tell(what) {
  console.log(JSON.stringify(what));
}

function connect() {
  const s = http2.connect(`http://127.0.0.1:${port}`);
  s.on("connect", () => (s.port = s.socket.localPort));
  s.on("goaway", () => session === s && (session = undefined));
  s.on("close", () => session === s && (session = undefined));
  s.on("error", () => {}); // its streams tell
  return s;
}

function request() {
  if (ended) {
    if (--running === 0) {
      tell({ answered });
      process.exit();
    }
    return;
  }
  session ??= connect();
  const s = session;
  const stream = s.request({ ":method": "POST", ":path": "/" });
  let status, code;
  stream.on("response", (headers) => (status = headers[":status"]));
  stream.on("error", (error) => (code = error.message));
  stream.on("close", () => {
    if (!code && status === 200) answered++;
    else tell({ failed: code ?? `status ${status}`, port: s.port ?? 0, stream: stream.id ?? 0 });
    setImmediate(request);
  });
  stream.resume();
  stream.end("a request");
}

require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  if (line === "end") return (ended = true);
  port = line;
  tell({ port: Number(line) });
  for (; running < 30; running++) request();
});
