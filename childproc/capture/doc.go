// Package capture takes part in the bind and listen of an app that opens its listeners by itself.
//
// The shim of such an app installs a seccomp filter (seccomp_unotify(2)), which every process that comes of it
// inherits. The thread that calls bind or listen then waits until grace has answered: the call may go on, it may have a
// result without having been made, or another socket may take the place of the app's. A second form of the filter is
// for unlink and unlinkat too.
//
// What the filter does not see: bind and listen by io_uring, and those of programs
// for another architecture (32-bit ones, x32).
//
// When the holder of a Listener is killed, what the app has goes on, but its next
// bind, listen or (with the second form) unlink fails with ENOSYS: the filter cannot be removed.
package capture
