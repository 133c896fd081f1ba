// Package control is how people and programs ask a running grace: the messages, the
// server, the client, and the directories with the sockets.
//
// A grace process listens on a unix socket and speaks HTTP with JSON, so that curl is a client
// too; docs/control.md describes it for those who write one. Only processes of grace's
// own user and of root are answered.
package control
