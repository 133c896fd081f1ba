// Package handoff is the contract between grace and its apps: how a listening socket outlives the process that
// accepts from it. Both sides of the contract are here.
//
// # The app's side
//
// Replace net.Listen by [Listen], and say when you serve:
//
//	ln, err := handoff.Listen("tcp", ":8080")
//	if err != nil {
//		return err
//	}
//	go srv.Serve(ln)
//	if err := handoff.Ready(); err != nil {
//		return err
//	}
//
// The program then runs under grace, under systemd's socket activation, under Server::Starter, and alone: where no
// socket was left to it, Listen binds one, and where nobody wants to know, [Ready] does nothing. Package drain has the
// other end of such a program, and calls Ready itself.
//
// # Which socket Listen returns
//
// An inherited socket is found by the address it is really bound to:
//
//	bound           found by
//	127.0.0.1:8080  Listen("tcp", "127.0.0.1:8080"), "tcp4" too, "localhost:8080" too
//	[::]:8080       Listen("tcp", ":8080"), "0.0.0.0:8080" and "[::]:8080" too, as with net.Listen
//	0.0.0.0:8080    the same, "tcp4" too
//	/run/app.sock   Listen("unix", "/run/app.sock"), any other path to the same file too
//	@app            Listen("unix", "@app")
//
// A socket bound to one address is not found by another that includes it: Listen then binds its own, and the EADDRINUSE
// that it mostly gets names the socket that was left over. An app that should not care how its operator spells an
// address, or which port it is, asks by [ListenNamed]. One that takes a descriptor's number from its command line, as in
//
//	grace run --listen web=:8080 -- ./app -network fd -addr {fd:web}
//
// passes both on to Listen: Listen("fd", "3") is the inherited socket 3. An inherited socket is given out once in the
// life of the process.
//
// The first call of any of these functions takes all sockets: it sets their descriptors close-on-exec, so that programs
// started later do not get them by accident. Until then they would. The variables stay in the environment for others
// to read; a program that starts servers of its own takes them out of the environment of those, as
// [github.com/gracerun/grace/handoff/socket.CleanEnv] does on Linux.
//
// # Who tells the app, and how
//
// These conventions are read, and a socket that several of them name is one socket:
//
//	systemd           LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES   if LISTEN_PID is this process
//	Server::Starter   SERVER_STARTER_PORT
//	einhorn           EINHORN_FD_COUNT, EINHORN_FD_0, ...      if EINHORN_MASTER_PID is its parent
//	php-fpm           FPM_SOCKETS
//	nginx             NGINX
//	tableflip         TABLEFLIP_HAS_PARENT_7DIU3               if descriptors 3 and 4 are pipes
//	inetd             descriptor 0 is a socket, which /dev/null then replaces
//	the command line  Listen("fd", number)
//
// Variables are often inherited by processes they were not meant for. So a number counts only if it is a listening
// socket or a bound datagram one without a peer, and was open when the program began. Any other is passed over without
// an error: the connection that an inetd "nowait" service finds as descriptor 0 stays there. Where a variable tells of more
// descriptors than a process can have open, Listen fails and names it, unless the socket is found in another way.
//
// An app built on tableflip goes on using tableflip; grace speaks that dialect too. Nothing is taken from the library
// as long as the app asks for its sockets there: Ready writes to the parent's pipe only if Listen found the sockets.
// An app that leaves tableflip for this package can be upgraded from the one to the other.
//
// # Readiness
//
// [Ready], [Status], [Stopping] and [InFlight] send the messages of sd_notify to NOTIFY_SOCKET. Grace leaves the old
// generation alone until its successor has said READY=1, so say it last: after caches are warm, when the next request
// will be answered. To a parent that listens as tableflip does, Ready says so by its pipe.
//
// [KillAfter] is how much time there is for the end.
package handoff
