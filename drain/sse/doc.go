// Package sse streams Server-Sent Events to browsers and other clients, and ends the streams in an orderly way when the
// program drains: https://html.spec.whatwg.org/multipage/server-sent-events.html.
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
// A stream does not end by itself, so it would delay a drain until the timeout, and then be cut. Here the drain cancels the
// context of the request when it comes to the streams, after ordinary requests were finished. Each client is told to wait
// for a random time of up to a second (see [Retry]), and the response ends. A browser then opens the stream again,
// at the successor, with the ID of the last event that it has seen. [Finish] makes the drain wait for a stream that ends
// soon, such as the progress of a job. The page should close its EventSource at the last event, or it will reconnect.
//
// # Events for many
//
// A [Broadcast] sends each event to all clients, and sends the missed events to clients that reconnect. Within one process
// its own event IDs and its History are enough. Another process knows neither the events that this one has sent nor their
// IDs. So when a client reconnects to a new process after an upgrade, that process does not know the client's last event.
// There are three ways to handle that:
//
//   - Do nothing: the client gets all events that the new process has published since its start, and then the further
//     ones. Events published between the end of its stream and the start of the new process are lost, and events that both
//     processes published are sent twice.
//   - Set [Broadcast.Lost]: the same, but the page is told first, and can reload its state. This is right for most pages.
//   - Set [Broadcast.From]: the events are in a store that all processes share, such as a table, a log or a stream of Redis
//     or NATS. Each process publishes all of them, with the IDs of the store. The client gets each event once and in order,
//     whichever process it connects to.
//
// A page that was rendered with the state after some event can pass that event's ID to its first stream: new
// EventSource("/news?lastEventId=42").
package sse
