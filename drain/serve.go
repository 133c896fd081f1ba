package drain

import (
	"cmp"
	"net"
	"net/http"

	"github.com/gracerun/grace/handoff"
)

// ListenAndServe is Serve on the TCP address srv.Addr, ":http" if that is empty. It takes the socket that a supervisor
// has left for this address, or binds one (see handoff.Listen).
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

// Serve is a whole program of one server: it serves HTTP on ln until it is told to stop, lets the clients go without
// losing a request, and returns. It is New, Drain.Start and Drain.Wait in one, with all that they say.
//
// When it accepts connections it calls handoff.Ready. SIGTERM, SIGINT or the end of the context (see Signals and
// Context) begin the drain. A second signal (see Drain), SIGQUIT or the end of the timeout cut what remains. The result
// is nil if no request was cut. An error of Accept or handoff.Ready ends Serve too, after a drain.
func Serve(srv *http.Server, ln net.Listener, opts ...Option) error {
	d := newDrain(opts)
	return d.serveAlone(d.Start(srv, ln))
}

// ServeTLS is Serve for HTTPS. The files are as in http.Server.ServeTLS: empty if srv.TLSConfig has certificates.
func ServeTLS(srv *http.Server, ln net.Listener, certFile, keyFile string, opts ...Option) error {
	d := newDrain(opts)
	return d.serveAlone(d.StartTLS(srv, ln, certFile, keyFile))
}

// serveAlone begins to look at signals and the context after the start, so that the server is never too late.
func (d *Drain) serveAlone(started error) error {
	if started != nil {
		d.stop.close()
		return started
	}
	go d.run()
	return d.Wait()
}
