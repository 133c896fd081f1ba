package drain

import (
	"net"
	"net/http"
)

// Serve is a whole program of one server: it serves HTTP on ln until it is told to stop, lets the clients go without
// losing a request, and returns. It is New, Drain.Serve and Drain.Wait in one, with all that they say.
//
// When it accepts connections it calls handoff.Ready. SIGTERM, SIGINT or the end of the context (see Signals and
// Context) begin the drain. A second signal (see Drain), SIGQUIT or the end of the timeout cut what remains. The result
// is nil if no request was cut. An error of Accept or handoff.Ready ends Serve too, after a drain.
func Serve(srv *http.Server, ln net.Listener, opts ...Option) error {
	d := newDrain(opts)
	d.Serve(srv, ln)
	go d.run()
	return d.Wait()
}

// ServeTLS is Serve for HTTPS. The files are as in http.Server.ServeTLS: empty if srv.TLSConfig has certificates.
func ServeTLS(srv *http.Server, ln net.Listener, certFile, keyFile string, opts ...Option) error {
	d := newDrain(opts)
	d.ServeTLS(srv, ln, certFile, keyFile)
	go d.run()
	return d.Wait()
}
