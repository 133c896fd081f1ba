// The primary replaces its worker on SIGHUP, as the manual of cluster describes it: it forks another one, and disconnects the old
// one when the new one listens.
const cluster = require("cluster");

cluster.setupPrimary({ exec: "FOLDER/server.js" });
let current = cluster.fork();

process.on("SIGHUP", () => {
  const old = current;
  const next = cluster.fork();
  next.once("listening", () => {
    current = next;
    old.disconnect();
    setTimeout(() => old.process.kill("SIGKILL"), 2000).unref();
  });
});
