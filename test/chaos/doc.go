// Package chaos does to running instances of grace what can happen to them, in random order, while clients that never
// retry use the apps, and looks for everything that should not follow from it.
//
// One instance of grace is run for each way to have a socket: held, steered, captured, unix and captured unix. Each gets
// one fault after another: upgrades to commands that work and to those that do not, killed and stopped instances, a
// stopped grace, a new grace that works and ones that do not, floods at the control socket, a runtime directory that is
// removed or full, limits of descriptors and processes. After each fault the answer to a request has to agree with what
// serves. A request may fail only if an instance that was killed had accepted its connection.
//
// The sequence of faults follows from -chaos.seed; when they meet which request does not.
package chaos
