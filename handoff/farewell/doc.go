// Package farewell lets the kept-alive clients of a generation that is about to end leave without a lost request, though
// its app knows nothing of it. It is for plain HTTP/1 over TCP; what else is spoken is not touched by a bit.
//
//	announcer, err := farewell.Open()               // once; it takes rights
//	leaving, err := announcer.Announce(generation)  // its successor serves: answers say Connection: close
//	leaving.Await(oneSecond)                        // clients leave
//	leaving.Hold(oneSecond)                         // open requests are answered; what the silent ones send waits
//	...                                             // the stop signal
//	leaving.Keep(ctx, stopping, keeping)            // the silent ones' one request goes to the successor
//
// All of it blocks, and takes milliseconds where there are thousands of connections: it is for a goroutine of its own.
// docs/farewell.md says how it works, and how to watch it.
package farewell
