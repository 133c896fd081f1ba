// Package sse streams Server-Sent Events to browsers and other clients, and ends the streams well when the program
// drains: https://html.spec.whatwg.org/multipage/server-sent-events.html.
//
//	mux.Handle("/clock", sse.Handler(func(s *sse.Stream, r *http.Request) error {
//		for {
//			select {
//			case now := <-time.After(time.Second):
//				if err := s.Send(sse.Event{Data: now.String()}); err != nil {
//					return err
//				}
//			case <-r.Context().Done():
//				return nil
//			}
//		}
//	}))
//
// # The end of a stream
//
// A stream does not end by itself, so it would hold a drain until its timeout, and be cut. Here the context of the
// request ends when the drain comes to the streams, after ordinary requests were finished. The client is told to wait for
// up to a second, each for a time of its own (see [Retry]), and the response ends. A browser then opens the stream again,
// at the successor, with the ID of the last event that it has seen. A stream that ends soon, such as the progress of a
// job, is left alone with [Finish]; the page should close its EventSource at the last event, since it would come back.
//
// # Events for many
//
// A [Broadcast] sends each event to all clients, and to those that come back what they missed. Within one process its own
// numbers and History are enough. Another process does not know what this one has sent, nor the numbers that it has given.
// A client that comes to it after an upgrade is one of which the last event is not known. There are three ways:
//
//   - Nothing: the client gets all that the new process has published since its start, and goes on. What was published
//     between the end of its stream and the start of the new process is lost, and what both processes published for the
//     same cause comes twice.
//   - [Broadcast.Lost]: the same, but the page is told before, and loads its state anew. Good for most pages.
//   - [Broadcast.From]: the events are in a store that all processes share, such as a table, a log or a stream of Redis or
//     NATS. Each process publishes all of them, by the IDs of the store. The client gets each event once, in order, whatever
//     process it comes to.
//
// A page that was rendered with the state at some event says so for its first stream: new
// EventSource("/news?lastEventId=42").
package sse
