// Package doctor tries on a machine, or in a container, what grace is built on, and
// tells what works, what is missing, and what to do about it.
//
// It concludes as little as it can from versions and settings. An app of its own,
// the test app, is started as `grace run` starts one: it is handed a socket, captured,
// looked into, and serves a connection. Nothing stays behind.
package doctor
