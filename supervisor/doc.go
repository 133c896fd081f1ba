// Package supervisor is the brain of grace: it decides when a generation of the
// app starts, serves, drains and ends, and has it done.
//
// # Decide, then do
//
// One goroutine owns all state. It takes one event, asks the machine, and does
// what the machine says:
//
//	for !done { ev := <-events; for _, a := range m.Step(ev) { perform(a) } }
//
// The machine is a pure function over plain data. perform never blocks and never
// calls the machine; what it starts answers with a later event. Every other
// goroutine only turns one fact of the operating system into one event.
package supervisor
