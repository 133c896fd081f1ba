// Four clients that keep their connections, by Node's own agent. Each line of output is an answer or a failure.
const http = require("http");
const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });

function ask() {
  const failed = (error) => { console.log("failed:", error.message); setTimeout(ask, 5); };
  http.get(process.argv[2], { agent }, (answer) => {
    answer.resume();
    answer.on("error", failed);
    answer.on("end", () => { console.log(answer.statusCode === 200 ? "answered" : "failed: " + answer.statusCode); setTimeout(ask, 5); });
  }).on("error", failed);
}

for (let n = 0; n < 4; n++) ask();
