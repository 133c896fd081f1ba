// END is what it does when it is told to stop: shutdown or die.
const fs = require("fs");
const http = require("http");

const [number, fault] = fs.readFileSync("FOLDER/version", "utf8").trim().split(" ");

function events(request, response) {
  let last = Number(request.headers["last-event-id"] || 0);
  response.setHeader("Content-Type", "text/event-stream");
  const send = () => response.write(`id: ${++last}\ndata: event\n\n`);
  const timer = setInterval(send, 100);
  response.on("close", () => clearInterval(timer));
  send();
}

const server = http.createServer((request, response) => {
  response.setHeader("X-Pid", process.pid);
  response.setHeader("X-Generation", number);
  if (request.url === "/echo") request.pipe(response);
  else if (request.url === "/slow") setTimeout(() => response.end("slow\n"), 500);
  else if (request.url === "/events") events(request, response);
  else response.end("hello\n");
});

function stop() {
  if (fault === "hang") return;
  server.close(() => process.exit(0));
  setTimeout(() => process.exit(0), 2000).unref();
}

if ("END" === "shutdown") {
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
}
if (fault === "hang") {
  for (const name of ["SIGTERM", "SIGINT", "disconnect"]) process.on(name, () => {});
}
if (fault === "crash") throw new Error("this version crashes at its start");
if (fault === "never") setInterval(() => {}, 1000);
else setTimeout(() => server.listen(Number(process.argv[2] || PORT), "127.0.0.1"), DELAY);
