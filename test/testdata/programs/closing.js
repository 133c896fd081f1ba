// At TERM it asks its keep-alive clients to leave, and ends when they have.
const http = require("http");
const net = require("net");

let draining = false;
const server = http.createServer((request, response) => {
  response.setHeader("X-Generation", process.env.GRACE_GENERATION || "0");
  if (draining) response.setHeader("Connection", "close");
  if (request.url === "/echo") request.pipe(response);
  else if (request.url.startsWith("/slow")) setTimeout(() => response.end("hello\n"), 300);
  else response.end("hello\n");
});
server.listen(Number(process.argv[2]), "127.0.0.1");

process.on("SIGTERM", () => {
  draining = true;
  net.Server.prototype.close.call(server);
  setTimeout(() => server.closeIdleConnections(), 2000).unref();
});
