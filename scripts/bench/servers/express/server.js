const app = require("express")();
app.use((request, response) => {
  request.resume();
  request.on("end", () => response.send("hello\n"));
});
const server = app.listen(+process.argv[2], "127.0.0.1", 4096);
server.keepAliveTimeout = 600000;
// As Express' documentation has it ("Health checks and graceful shutdown").
process.on("SIGTERM", () => server.close());
