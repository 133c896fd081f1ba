// Package machine decides what happens to the generations of an app: it takes one event
// and gives the actions that follow from it. It is a pure function over plain data, and imports
// nothing of grace.
//
// # A generation
//
//	preparing ──prepared──> candidate ──all instances ready──> current
//	    │                       │                                 │
//	    └──────── failed ───────┴──> draining <─ successor ready ─┘
//	                                    │
//	                                    └── nothing is left ──> ended
//
// Where each generation has sockets of its own (Policy.Steered), one that has a
// successor is not told to drain at once: it stays as it is until new connections have
// gone over, they can be sent back to it for a while, and then it finishes what it has undisturbed.
//
//	current ──successor ready──> settling ──its time is over──> emptying ──quiet, or too late──> draining
//	   ^                            │
//	   └── the successor has lost an instance
//
// A candidate can share the clients of the current generation for a while (Policy.Canary), which serves on and has all of them
// again when the candidate fails. And a generation can be kept warm when it has settled (Policy.KeepWarm): whoever asks for it gets it back.
//
//	candidate ──all instances ready──> sharing ──the last step is over──> current
//	settling ──its time is over──> warm ──its time is over──> emptying
//
// Instances can come and go apart from the rest of their generation, as a batch (batch.go): when there are to be more or fewer,
// when one is replaced, and in an upgrade in which they come one after another (roll.go). A batch that comes is a candidate until
// it joins, and one that goes is a generation that was replaced.
//
// One that has lost all its instances empties at once: what waits in their queues is nobody
// else's, so they are started again for it.
//
// With Policy.Farewell a generation that serves is closing before it drains: its clients are asked to leave, the others'
// requests are held back as long as there is a successor to answer them, and then it is told to stop.
//
// Emptying, closing and draining together have one --drain-timeout, of which the last quarter is kept
// for draining. When all of grace stops, a generation that serves empties too: new connections
// are turned away.
//
// # An instance
//
//	backoff ──> starting ──> ready ──> draining ──> killing ──> exited
//
// An instance may skip any phase but the last. docs/transitions.md has every
// phase with every event, made by running the machine.
//
// # Invariants
//
//  1. There is at most one candidate. Requests that come during an upgrade
//     together cause one more.
//  2. The current generation is not told to drain before its successor is ready,
//     unless all of grace stops.
//  3. A generation that was told to drain is never promoted.
//  4. Every start is followed by exactly one end, and grace never finishes with
//     a live child.
//  5. From any state a stop request and the passing of deadlines lead to the end.
//  6. A candidate that exits is a failed upgrade and not restarted. If the current
//     generation dies while a candidate starts, the candidate is promoted the
//     moment it is ready. An upgrade does not wait for a restart's backoff; one
//     beyond MaxDraining waits and says so.
//  7. A signal is acted on in every phase.
//  8. New connections go to the current generation, and never to one that was told
//     to drain.
//  9. A generation's executable is kept until it has ended and no rollback can
//     ask for it.
//  10. Who serves on sockets of its own is not told to stop with all that waits in
//     them: its successor has them by then, or new connections are turned away, and it
//     was quiet or its time was over, unless grace is to end at once.
//  11. Nothing of a generation that was replaced is started again, unless connections
//     wait in a queue that nobody else can accept from. As long as they do it is not
//     told to stop before its time is over.
//  12. Who serves on sockets of its own is not told to stop between the order to send new
//     connections elsewhere and its answer, unless that takes too long or all of grace stops.
//  13. An instance is killed at the latest --drain-timeout after its generation began to
//     empty or, where it does not empty, to drain, unless it asks for more time.
//  14. What clients send is held back only after they were asked to leave, and only while another generation
//     serves. Each hold is followed by a keep, unless the generation ends before that.
//  15. What grace has not started (Foreign) is told to stop only after the first generation has come to serve in its place.
//     If that does not, it is left alone, and grace ends. It is never started again.
//  16. A generation that shares has the share that its step has, and no other. As long as it shares the current one is there, which
//     was not told to stop.
//  17. In an upgrade in which instances come one after another, none is taken out of service unless as many serve as there are to be,
//     or, without a surge, all but one. No more run than the surge allows when one is started.
//  16. Outside of upgrades, instances are not restarted more often than Policy.RestartLimit allows: then grace stops.
package machine
