// A server as the manual of Node shows it: TERM ends it at once. http.js PORT or PATH.
const http = require("http");

http.createServer((request, response) => {
  response.setHeader("X-Generation", process.env.GRACE_GENERATION || "0");
  if (request.url === "/echo") request.pipe(response);
  else if (request.url.startsWith("/slow")) setTimeout(() => response.end("hello\n"), 300);
  else response.end("hello\n");
}).listen(Number(process.argv[2]) ? { port: Number(process.argv[2]), host: "127.0.0.1" } : { path: process.argv[2] });
