// Package childproc is one process of the app: starting it, telling when it is ready, signalling it, and waiting for
// its end and for the end of what it left behind.
//
// A process is started by way of a shim, a stub in memory or a copy of the program (package shim): it sets what can only be
// known after the fork (its own pid in LISTEN_PID) or must be done last (dropping privileges), and then becomes the app.
//
// Nothing here logs, and nothing but [Reaper] is safe for use by several goroutines at once.
package childproc
