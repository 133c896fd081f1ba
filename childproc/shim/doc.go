// Package shim is what a process runs between grace's fork and the app's exec. It carries out a list of system calls that
// grace sends it, of which the last one executes the app: what can only be known after the fork, such as the process's own
// pid, and what has to be done last, such as giving up rights, is in that list.
//
// The process is a stub of some 250 bytes of code ([Stub]) that grace executes from memory. Where the system does not execute
// files in memory it is a copy of grace named [Name], which takes two milliseconds more: Go's runtime starts first. That copy
// does its work in the init of this package, which imports next to nothing: of the packages whose imports are initialized,
// Go takes the first by import path (go.dev/ref/spec#Program_initialization). Package strings would be too much already: it
// waits for unicode, and that for all before it.
//
// Both read the list from a connection that is their stdin. A system call that fails ends the process: it reports which one it
// was ([ParseReport]), and exits with [StatusFailed]. So do the end of the connection, and that of a list that executes nothing,
// without a report.
package shim
