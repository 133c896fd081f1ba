// Listens on all addresses of both families, each by a socket of its own.
const http = require("http");

for (const at of [{ host: "0.0.0.0" }, { host: "::", ipv6Only: true }])
  http.createServer((request, response) => response.end("hello\n")).listen({ port: Number(process.argv[2]), ...at });
