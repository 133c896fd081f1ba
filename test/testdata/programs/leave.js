// Its first generation listens on a second port too, until it gets USR1.
const http = require("http");

const serve = (port) => http.createServer((request, response) => response.end("hello\n")).listen(Number(port), "127.0.0.1");

serve(process.argv[2]);
const second = process.env.GRACE_GENERATION === "1" && serve(process.argv[3]);
process.on("SIGUSR1", () => second.close(() => console.log("closed")));
