// Two workers; the primary has the listener and deals out connections.
const cluster = require("cluster");

if (cluster.isPrimary) {
  cluster.fork();
  cluster.fork();
} else {
  require("./http.js");
}
