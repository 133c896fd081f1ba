// A server as the manual of Node shows it: TERM ends it at once.
const http = require("http");

http.createServer((request, response) => {
  response.setHeader("X-Generation", process.env.GRACE_GENERATION || "0");
  if (request.url === "/echo") request.pipe(response);
  else if (request.url.startsWith("/slow")) setTimeout(() => response.end("hello\n"), 300);
  else response.end("hello\n");
}).listen(Number(process.argv[2]), "127.0.0.1");
