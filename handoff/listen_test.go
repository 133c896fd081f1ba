package handoff

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/internal/inherited"
	"github.com/gracerun/grace/internal/requirement"
	"golang.org/x/sys/unix"
)

func init() {
	apptest.Roles["heir"] = heir
	apptest.Roles["systemd heir"] = systemdHeir
}

// bequest is what an heir says of one socket that it asked for.
type bequest struct {
	Inode uint64
	Error string
}

// heir asks for the sockets in HEIR, one "function,arguments" a word, reports each in a line, and then greets one
// client on each listener. "Ready" says so, and "Descriptor,N" reports what a descriptor is as an error.
func heir() {
	var listeners []net.Listener
	for word := range strings.FieldsSeq(os.Getenv("HEIR")) {
		got, err := ask(strings.Split(word, ","))
		if err != nil {
			json.NewEncoder(os.Stdout).Encode(bequest{Error: err.Error()})
			continue
		}
		json.NewEncoder(os.Stdout).Encode(bequest{Inode: apptest.InodeBehind(got)})
		if ln, ok := got.(net.Listener); ok {
			listeners = append(listeners, ln)
		}
	}
	for _, ln := range listeners {
		greet(ln)
	}
}

func ask(args []string) (any, error) {
	switch args[0] {
	case "Listen":
		return Listen(args[1], args[2])
	case "ListenPacket":
		return ListenPacket(args[1], args[2])
	case "ListenNamed":
		return ListenNamed(args[1], args[2], args[3])
	case "ListenPacketNamed":
		return ListenPacketNamed(args[1], args[2], args[3])
	case "Ready":
		return nil, Ready()
	case "Descriptor":
		target, err := os.Readlink("/proc/self/fd/" + args[1])
		return nil, errors.Join(errors.New(target), err)
	}
	panic("unknown function " + args[0])
}

func greet(ln net.Listener) {
	if l, ok := ln.(interface{ SetDeadline(time.Time) error }); ok {
		l.SetDeadline(time.Now().Add(2 * time.Minute))
	}
	conn, err := ln.Accept()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	fmt.Fprintln(conn, "from the heir")
}

// systemdHeir becomes an heir with the pid that it has, as grace's shim and systemd do.
func systemdHeir() {
	os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	os.Setenv(apptest.RoleVariable, "heir")
	panic(syscall.Exec("/proc/self/exe", os.Args[:1], os.Environ()))
}

// openSocket binds a stream or packet socket that is closed with the test.
func openSocket(t *testing.T, network, addr string) (socket any, bound string) {
	t.Helper()
	socket, err := listenOn(t, &inheritance{}, network, addr)
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT) {
		requirement.Check(t, "ipv6", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if conn, ok := socket.(net.PacketConn); ok {
		return conn, conn.LocalAddr().String()
	}
	return socket, socket.(net.Listener).Addr().String()
}

// bequeath leaves a duplicate of the socket open across exec, as a supervisor does for its app.
func bequeath(t *testing.T, socket any) (fd int) {
	t.Helper()
	var err error
	apptest.Control(socket, func(original int) { fd, err = unix.FcntlInt(uintptr(original), unix.F_DUPFD, 3) })
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func inheritFrom(variables map[string]string) *inheritance {
	return inherit(func(name string) string { return variables[name] })
}

// inheritOne makes the inheritance of a process that was left one socket, and closes what nobody asks for.
func inheritOne(t *testing.T, socket any) *inheritance {
	t.Helper()
	i := inheritFrom(map[string]string{"SERVER_STARTER_PORT": fmt.Sprintf("its key=%d", bequeath(t, socket))})
	if len(i.sockets) != 1 {
		t.Fatalf("%d sockets were inherited, not 1", len(i.sockets))
	}
	t.Cleanup(func() {
		for _, s := range i.sockets {
			unix.Close(s.FD)
		}
	})
	return i
}

// listenOn calls the method that fits the network.
func listenOn(t *testing.T, i *inheritance, network, addr string) (socket any, err error) {
	t.Helper()
	if strings.HasPrefix(network, "udp") || network == "unixgram" {
		conn, err := i.listenPacket(network, addr)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
		return conn, err
	}
	ln, err := i.listen(network, addr)
	if err == nil {
		t.Cleanup(func() { ln.Close() })
	}
	return ln, err
}

func TestInheritedSocketIsFoundByItsAddress(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := errors.Join(os.Mkdir("run", 0o755), os.Symlink("run", "var")); err != nil {
		t.Fatal(err)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	// PORT in asked is the port that was bound.
	tests := []struct {
		network, bound string
		asked, at      string
		found          bool
	}{
		{"tcp4", "127.0.0.1:0", "tcp", "127.0.0.1:PORT", true},
		{"tcp4", "127.0.0.1:0", "tcp4", "127.0.0.1:PORT", true},
		{"tcp4", "127.0.0.1:0", "tcp4", "localhost:PORT", true},
		{"tcp4", "127.0.0.1:0", "tcp", "127.0.0.2:PORT", false},
		{"tcp4", "127.0.0.1:0", "tcp", "[::1]:PORT", false},
		{"tcp4", "127.0.0.1:0", "tcp", "127.0.0.1:0", false},
		{"tcp4", "0.0.0.0:0", "tcp", ":PORT", true},
		{"tcp4", "0.0.0.0:0", "tcp4", ":PORT", true},
		{"tcp4", "0.0.0.0:0", "tcp6", ":PORT", false},
		{"tcp", "[::]:0", "tcp", ":PORT", true},
		{"tcp", "[::]:0", "tcp", "0.0.0.0:PORT", true},
		{"tcp", "[::]:0", "tcp6", "[::]:PORT", true},
		{"tcp6", "[::]:0", "tcp4", "0.0.0.0:PORT", false},
		{"tcp6", "[::1]:0", "tcp", "[::1]:PORT", true},
		{"tcp6", "[::1]:0", "tcp6", "[::1]:PORT", true},
		{"udp4", "127.0.0.1:0", "udp", "127.0.0.1:PORT", true},
		{"udp", "[::]:0", "udp", ":PORT", true},
		{"udp4", "127.0.0.1:0", "tcp4", "127.0.0.1:PORT", false},
		{"tcp4", "127.0.0.1:0", "udp4", "127.0.0.1:PORT", false},
		{"unix", path("run/a"), "unix", path("run/a"), true},
		{"unix", path("run/b"), "unix", path("var/b"), true},
		{"unix", path("run/c"), "unix", "run/c", true},
		{"unix", path("run/d"), "unix", path("run/other"), false},
		{"unix", path("run/e"), "unix", "@" + path("run/e"), false},
		{"unix", "@" + path("f"), "unix", "@" + path("f"), true},
		{"unix", "@" + path("g"), "unix", path("g"), false},
		{"unixgram", path("run/h"), "unixgram", path("run/h"), true},
		{"unixpacket", path("run/i"), "unixpacket", path("run/i"), true},
	}
	for _, tt := range tests {
		t.Run(tt.network+" "+tt.bound+" as "+tt.asked+" "+tt.at, func(t *testing.T) {
			original, bound := openSocket(t, tt.network, tt.bound)
			i := inheritOne(t, original)
			at := strings.Replace(tt.at, "PORT", bound[strings.LastIndex(bound, ":")+1:], 1)
			socket, err := listenOn(t, i, tt.asked, at)
			if !tt.found && errors.Is(err, unix.EADDRINUSE) {
				return // the port is another program's there
			}
			if err != nil {
				t.Fatal(err)
			}
			if found := apptest.InodeBehind(socket) == apptest.InodeBehind(original); found != tt.found {
				t.Errorf("found is %v, not %v", found, tt.found)
			}
		})
	}
}

func TestInheritedSocketIsGivenOutOnce(t *testing.T) {
	for _, socket := range []struct{ network, addr string }{
		{"tcp4", "127.0.0.1:0"}, {"udp4", "127.0.0.1:0"}, {"unix", filepath.Join(t.TempDir(), "once")},
	} {
		t.Run(socket.network, func(t *testing.T) {
			original, bound := openSocket(t, socket.network, socket.addr)
			i := inheritOne(t, original)
			if _, err := listenOn(t, i, socket.network, bound); err != nil {
				t.Fatal(err)
			}
			if _, err := listenOn(t, i, socket.network, bound); !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("the second time gives %v", err)
			}
		})
	}
}

func TestAddressInUseNamesWhatNobodyAskedFor(t *testing.T) {
	for _, network := range []string{"tcp4", "udp4"} {
		t.Run(network, func(t *testing.T) {
			original, bound := openSocket(t, network, "127.0.0.1:0")
			i := inheritOne(t, original)
			i.sockets[0].Name = "web"
			_, port, _ := net.SplitHostPort(bound)
			_, err := listenOn(t, i, network, "0.0.0.0:"+port)
			want := "web=" + strings.TrimSuffix(network, "4") + "://127.0.0.1:" + port
			if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), want) {
				t.Errorf("the error is %v, without %s", err, want)
			}
		})
	}
}

func TestClosedInheritedListenerLeavesItsPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stays")
	original, _ := openSocket(t, "unix", path)
	ln, err := inheritOne(t, original).listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if conn, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
}

// Variables outlive the process that they were meant for, and name numbers that mean something else by then.
func TestStrangeDescriptorsAreLeftAlone(t *testing.T) {
	listener, addr := openSocket(t, "tcp4", "127.0.0.1:0")
	var own int
	apptest.Control(listener, func(fd int) { own = fd })
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	connected := bequeath(t, conn)
	defer unix.Close(connected)
	unbound, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(unbound)
	unboundPacket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(unboundPacket)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	packets, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	connectedPacket := bequeath(t, packets)
	defer unix.Close(connectedPacket)
	raw, err := unix.Dup(int(os.Stderr.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(raw)
	bequeathed := bequeath(t, listener)
	defer unix.Close(bequeathed)
	for name, word := range map[string]string{
		"opened by this process": strconv.Itoa(own),
		"connected":              strconv.Itoa(connected),
		"connected, of packets":  strconv.Itoa(connectedPacket),
		"unbound":                strconv.Itoa(unbound),
		"unbound, of packets":    strconv.Itoa(unboundPacket),
		"one of a pair":          strconv.Itoa(pair[0]),
		"no socket":              strconv.Itoa(raw),
		"closed":                 "1000000",
		"beyond 32 bits":         strconv.Itoa(1<<32 + bequeathed),
		"negative":               "-1",
		"words":                  "yes",
		"empty":                  "",
	} {
		t.Run(name, func(t *testing.T) {
			i := inheritFrom(map[string]string{
				"NGINX": word + ";", "SERVER_STARTER_PORT": "key=" + word, "FPM_SOCKETS": "key=" + word,
			})
			if len(i.sockets) != 0 {
				t.Errorf("%v were taken", i.sockets)
			}
			if ln, err := i.listen("fd", word); err == nil {
				t.Errorf("%v listens", ln.Addr())
			}
			if conn, err := i.listenPacket("fd", word); err == nil {
				t.Errorf("%v receives", conn.LocalAddr())
			}
		})
	}
	if apptest.CloseOnExec(raw) {
		t.Error("a descriptor that is not the supervisor's was set close-on-exec")
	}
}

func TestSocketsThatNobodyAsksForAreCloseOnExec(t *testing.T) {
	original, _ := openSocket(t, "tcp4", "127.0.0.1:0")
	i := inheritOne(t, original)
	if !apptest.CloseOnExec(i.sockets[0].FD) {
		t.Error("programs that the app starts get its sockets")
	}
}

func TestVariablesOfAnotherProcessAreIgnored(t *testing.T) {
	listener, _ := openSocket(t, "tcp4", "127.0.0.1:0")
	fd := bequeath(t, listener)
	defer unix.Close(fd)
	for name, variables := range map[string]map[string]string{
		"systemd":         {"LISTEN_FDS": strconv.Itoa(fd - 2), "LISTEN_PID": strconv.Itoa(os.Getppid())},
		"systemd, no pid": {"LISTEN_FDS": strconv.Itoa(fd - 2)},
		"systemd, words":  {"LISTEN_FDS": "one", "LISTEN_PID": strconv.Itoa(os.Getpid())},
		"einhorn":         {"EINHORN_FD_COUNT": "1", "EINHORN_FD_0": strconv.Itoa(fd), "EINHORN_MASTER_PID": strconv.Itoa(os.Getpid())},
		"einhorn, words":  {"EINHORN_FD_COUNT": "one", "EINHORN_FD_0": strconv.Itoa(fd), "EINHORN_MASTER_PID": strconv.Itoa(os.Getppid())},
	} {
		t.Run(name, func(t *testing.T) {
			if i := inheritFrom(variables); len(i.sockets) != 0 {
				t.Errorf("%v were taken", i.sockets)
			}
		})
	}
}

// heirVariables spare a heir built with -race the second that it would sleep at its end.
func heirVariables(role string, asks ...string) []string {
	return []string{apptest.RoleVariable + "=" + role, "HEIR=" + strings.Join(asks, " "), "GORACE=atexit_sleep_ms=0"}
}

// startHeir runs this binary as role with the sockets from descriptor 3 on, and returns what it reports.
func startHeir(t *testing.T, role string, sockets []any, variables, asks []string) []bequest {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), variables...), heirVariables(role, asks...)...)
	for _, s := range sockets {
		f := os.NewFile(uintptr(bequeath(t, s)), "bequeathed")
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	return readBequests(t, cmd, len(asks))
}

func readBequests(t *testing.T, cmd *exec.Cmd, answers int) []bequest {
	t.Helper()
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timeout := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		defer timeout.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the heir ended with %v", err)
		}
	})
	var bequests []bequest
	for lines := bufio.NewScanner(out); len(bequests) < answers && lines.Scan(); {
		var b bequest
		if err := json.Unmarshal(lines.Bytes(), &b); err != nil {
			t.Errorf("%s: %v", lines.Bytes(), err)
		}
		bequests = append(bequests, b)
	}
	if len(bequests) < answers {
		t.Fatalf("the heir answered %d of %d", len(bequests), answers)
	}
	return bequests
}

func checkGreeting(t *testing.T, network, addr string) {
	t.Helper()
	conn := knock(t, network, addr)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "from the heir\n" {
		t.Errorf("the heir says %q, %v", line, err)
	}
}

func TestSocketsByName(t *testing.T) {
	web, addr := openSocket(t, "tcp4", "127.0.0.1:0")
	first, _ := openSocket(t, "udp4", "127.0.0.1:0")
	second, _ := openSocket(t, "udp4", "127.0.0.1:0")
	asks := []string{
		"ListenPacketNamed,dns,udp,127.0.0.1:0", "ListenPacketNamed,dns,udp,127.0.0.1:0", "ListenPacketNamed,dns,udp,127.0.0.1:0",
		"ListenPacketNamed,web,udp,127.0.0.1:0", "ListenNamed,web,tcp,:0", "ListenNamed,none,tcp," + addr,
	}
	variables := []string{"LISTEN_FDS=4", "LISTEN_FDNAMES=dns:web:dns"}
	got := startHeir(t, "systemd heir", []any{first, web, second}, variables, asks)
	for n, want := range map[int]any{0: first, 1: second, 4: web} {
		if got[n].Inode != apptest.InodeBehind(want) {
			t.Errorf("%s gives another socket", asks[n])
		}
	}
	for _, n := range []int{2, 3} {
		if got[n].Error != "" || got[n].Inode == apptest.InodeBehind(web) {
			t.Errorf("%s gives %+v, not a new socket", asks[n], got[n])
		}
	}
	if !strings.Contains(got[5].Error, "address already in use") {
		t.Errorf("%s gives %+v", asks[5], got[5])
	}
	checkGreeting(t, "tcp", addr)
}

func TestWithoutSupervisorListenBinds(t *testing.T) {
	for _, name := range []string{"", "web"} {
		ln, err := ListenNamed(name, "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		conn, err := ListenPacketNamed(name, "udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if _, err := Listen("tcp", "no port"); err == nil {
		t.Error("an address without a port is accepted")
	}
	if _, err := ListenPacket("udp", "no port"); err == nil {
		t.Error("a packet address without a port is accepted")
	}
}

// TestUnderRealSupervisors runs an heir under programs that others wrote.
func TestUnderRealSupervisors(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "activated")
	variables := heirVariables("heir", "Listen,unix,"+path)
	clean := []string{"--listen=" + path, "--fdname=web"}
	for _, variable := range variables {
		clean = append(clean, "--setenv="+variable)
	}
	for program, args := range map[string][]string{
		"systemd-socket-activate": append(clean, self),
		"start_server":            {"--path=" + path, "--", self},
	} {
		t.Run(program, func(t *testing.T) {
			if _, err := exec.LookPath(program); err != nil {
				requirement.Check(t, program, err)
			}
			os.Remove(path)
			cmd := exec.Command(program, args...)
			cmd.Env = append(os.Environ(), variables...)
			cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Signal(unix.SIGTERM)
			checkGreeting(t, "unix", path)
		})
	}
}

// knock connects as soon as somebody listens.
func knock(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		conn, err := net.Dial(network, addr)
		if err == nil {
			return conn
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestAppsImportNothing keeps the dependencies of apps that import this package to the standard library and x/sys.
func TestAppsImportNothing(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for imported := range strings.FieldsSeq(string(out)) {
		ours := imported == "github.com/gracerun/grace/handoff" || strings.HasPrefix(imported, "github.com/gracerun/grace/handoff/internal/")
		if !ours && !strings.HasPrefix(imported, "golang.org/x/sys/") {
			t.Errorf("%s is imported", imported)
		}
	}
}

// A variable that tells of more descriptors than a process can have open costs nothing, and is told.
func TestMoreDescriptorsThanCanBeOpenAreRefused(t *testing.T) {
	listener, bound := openSocket(t, "tcp4", "127.0.0.1:0")
	fd := bequeath(t, listener)
	defer unix.Close(fd)
	for name, variables := range map[string]map[string]string{
		"LISTEN_FDS=3000000":                    {"LISTEN_PID": strconv.Itoa(os.Getpid())},
		"LISTEN_FDS=99999999999999999999":       {"LISTEN_PID": strconv.Itoa(os.Getpid())},
		"EINHORN_FD_COUNT=3000000":              {"EINHORN_MASTER_PID": strconv.Itoa(os.Getppid()), "EINHORN_FD_0": "1000000"},
		"EINHORN_FD_COUNT=99999999999999999999": {"EINHORN_MASTER_PID": strconv.Itoa(os.Getppid())},
	} {
		t.Run(name, func(t *testing.T) {
			variable, value, _ := strings.Cut(name, "=")
			variables[variable] = value
			var i *inheritance
			if spent := allocated(func() { i = inheritFrom(variables) }); spent > 1<<20 {
				t.Errorf("to read it takes %d bytes", spent)
			}
			for _, network := range []string{"tcp", "udp"} {
				if _, err := listenOn(t, i, network, "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), name) {
					t.Errorf("%s: the error is %v", network, err)
				}
			}
			variables["SERVER_STARTER_PORT"] = "web=" + strconv.Itoa(fd)
			if _, err := listenOn(t, inheritFrom(variables), "tcp", bound); err != nil {
				t.Errorf("a socket that there is gives %v", err)
			}
			fd = bequeath(t, listener)
		})
	}
}

// As many as can be open may be told of, and what is not open takes no memory.
func TestDescriptorsThatAreNotOpenTakeNoMemory(t *testing.T) {
	most := strconv.Itoa(inherited.DescriptorLimit())
	for name, variables := range map[string]map[string]string{
		"systemd":        {"LISTEN_PID": strconv.Itoa(os.Getpid()), "LISTEN_FDS": most},
		"einhorn":        {"EINHORN_MASTER_PID": strconv.Itoa(os.Getppid()), "EINHORN_FD_COUNT": most},
		"server-starter": {"SERVER_STARTER_PORT": strings.Repeat("1000000;", 10000)},
		"nginx":          {"NGINX": strings.Repeat("1000000;", 10000)},
		"php-fpm":        {"FPM_SOCKETS": strings.Repeat("1000000,", 10000)},
	} {
		t.Run(name, func(t *testing.T) {
			if spent := allocated(func() { inheritFrom(variables) }); spent > 1<<20 {
				t.Errorf("to read it takes %d bytes", spent)
			}
		})
	}
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
