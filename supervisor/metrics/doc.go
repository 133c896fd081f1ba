// Package metrics serves the state of a grace process and its app to Prometheus and load balancers over HTTP:
//
//	/metrics  what docs/metrics.md lists
//	/healthz  200 if grace's event loop answers
//	/readyz   200 if a generation serves and grace is not stopping, else 503
//
// Counting is an addition in memory. What can be asked for at any time is asked for when somebody wants to know, so an
// exporter that nobody asks costs nothing.
package metrics
