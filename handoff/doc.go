// Package handoff lets an app take its listening sockets from grace or another supervisor, and report that it is ready. The
// socket then outlives the process that accepts from it.
//
// Replace net.Listen by [Listen], and call [Ready] when the app serves:
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
// The program then runs under grace, under systemd's socket activation, under Server::Starter, and alone: if it has inherited
// no socket for the address, Listen binds one, and without a supervisor [Ready] does nothing. Package drain ends such a
// program in an orderly way, and calls Ready itself.
//
// # Which socket Listen returns
//
// Listen finds an inherited socket by the address that it is bound to:
//
//	bound           found by
//	127.0.0.1:8080  Listen("tcp", "127.0.0.1:8080"), "tcp4" too, "localhost:8080" too
//	[::]:8080       Listen("tcp", ":8080"), "0.0.0.0:8080" and "[::]:8080" too, as with net.Listen
//	0.0.0.0:8080    the same, "tcp4" too
//	/run/app.sock   Listen("unix", "/run/app.sock"), any other path to the same file too
//	@app            Listen("unix", "@app")
//
// A socket that is bound to one address is not found by a wider address that includes it. Listen then binds a socket of its
// own, and the EADDRINUSE that it usually gets names the unused inherited socket. An app that should not depend on the
// spelling of the address, or on the port, uses [ListenNamed]. An app that gets a descriptor's number on its command line, as in
//
//	grace run --listen web=:8080 -- ./app -network fd -addr {fd:web}
//
// passes both on to Listen: Listen("fd", "3") returns the inherited socket 3. Each inherited socket is returned only once in
// the life of the process.
//
// The first call of any of these functions takes all sockets: it sets their descriptors close-on-exec, so that programs that
// are started later do not inherit them by accident. The variables stay in the environment, because other code may read
// them. A program that starts other servers has to remove the variables from their environment: see [CleanEnv].
//
// # Conventions
//
// These conventions are supported. If several of them name the same socket, it counts once:
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
// Processes often inherit variables that were meant for others. So a number counts only if the descriptor was open when the
// program began, and is a listening socket or a bound datagram socket without a peer. Other numbers are ignored without
// an error: the connection that an inetd "nowait" service has as descriptor 0 stays there. If a variable announces more
// descriptors than a process can have open, Listen fails and names the variable, unless it finds the socket in another way.
//
// An app built on tableflip can keep using tableflip, because grace supports that dialect too. This package does not interfere
// with the library: Ready writes to the parent's pipe only if Listen found the sockets. An app that replaces tableflip by this
// package can be upgraded from the one to the other.
//
// # Readiness
//
// [Ready], [Status], [Stopping] and [InFlight] send messages of sd_notify to NOTIFY_SOCKET. grace stops the old
// generation only after its successor has sent READY=1. So call Ready last, when caches are warm and the next request
// will be answered. If the parent uses tableflip's pipe, Ready writes to that.
//
// [KillAfter] is the time that the app has to end.
package handoff
