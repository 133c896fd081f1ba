// A server of several ports, each opened a while after the one before. TERM ends it at once.
const http = require("http");

process.argv.slice(2).forEach((port, n) => setTimeout(() => {
  http.createServer((request, response) => {
    response.setHeader("X-Generation", process.env.GRACE_GENERATION || "0");
    response.end("hello\n");
  }).listen(Number(port), "127.0.0.1");
}, 200 * n));
