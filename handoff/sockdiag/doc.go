// Package sockdiag asks the kernel about sockets from the outside: who has an address, how many connections wait in a
// listener's queue or are open in a process, and whether anything goes on in them. It needs no help of the app.
package sockdiag
