package drain

import (
	"cmp"
	"net"
	"net/http"

	"github.com/gracerun/grace/handoff"
)

// ListenAndServe is Serve on the TCP address srv.Addr, or on ":http" if that is empty. It takes the socket that a
// supervisor has passed for this address, or binds one (see handoff.Listen).
func ListenAndServe(srv *http.Server, opts ...Option) error {
	ln, err := handoff.Listen("tcp", cmp.Or(srv.Addr, ":http"))
	if err != nil {
		return err
	}
	return Serve(srv, ln, opts...)
}

// ListenAndServeTLS is ListenAndServe for HTTPS, on ":https" if srv.Addr is empty. The files are as in ServeTLS.
func ListenAndServeTLS(srv *http.Server, certFile, keyFile string, opts ...Option) error {
	ln, err := handoff.Listen("tcp", cmp.Or(srv.Addr, ":https"))
	if err != nil {
		return err
	}
	return ServeTLS(srv, ln, certFile, keyFile, opts...)
}

// Serve is for a program with one server. It serves HTTP on ln until the program is told to stop, drains, and returns. It
// is New, Drain.Start and Drain.Wait in one: see there for what holds for srv and ln. Serve closes ln in any case.
//
// When the server accepts connections, Serve calls handoff.Ready. SIGTERM, SIGINT or the end of the context (see Signals and
// Context) begin the drain. SIGQUIT, a second signal (see Drain) or the end of the timeout cut what remains. Serve returns
// nil if no request was cut. An error of Accept or of handoff.Ready begins the drain too, and is returned after it.
func Serve(srv *http.Server, ln net.Listener, opts ...Option) error {
	d := newDrain(opts)
	return d.serveAlone(d.Start(srv, ln))
}

// ServeTLS is Serve for HTTPS. The files are as in http.Server.ServeTLS: empty if srv.TLSConfig has certificates.
func ServeTLS(srv *http.Server, ln net.Listener, certFile, keyFile string, opts ...Option) error {
	d := newDrain(opts)
	return d.serveAlone(d.StartTLS(srv, ln, certFile, keyFile))
}

// serveAlone starts the drain's goroutine only after the server, so that a signal during the start does not keep the
// server from being part of the drain.
func (d *Drain) serveAlone(started error) error {
	if started != nil {
		d.stop.close()
		return started
	}
	go d.run()
	return d.Wait()
}
