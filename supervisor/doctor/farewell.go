package doctor

import "github.com/gracerun/grace/handoff/farewell"

func leaving() Finding {
	f := Finding{Mechanism: "farewell", State: OK, Means: "with --farewell clients close kept-alive HTTP/1 connections before the app does"}
	announcer, err := farewell.Open()
	if err == nil {
		err = announcer.Close()
	}
	if err != nil {
		f.State, f.Means = Limited, "an app that closes kept-alive connections when it ends may lose a request on each of them: "+err.Error()
		f.Do = "start grace as root, or with CAP_BPF and CAP_NET_ADMIN; package drain lets a Go app do without"
	}
	return f
}
