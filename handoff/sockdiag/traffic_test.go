package sockdiag

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

func init() {
	apptest.Roles["talker"] = talker
	apptest.Roles["web"] = web
	apptest.Roles["looker"] = looker
}

// looker looks at the pid and the address it is told.
func looker() {
	apptest.Obey(func(order string) string {
		var pid int
		var at string
		fmt.Sscan(order, &pid, &at)
		_, err := Look([]int{pid}, []netip.AddrPort{netip.MustParseAddrPort(at)}, time.Second)
		return fmt.Sprint(err)
	})
}

// talker does with the connection it accepted last what it is told.
func talker() {
	ln, err := net.FileListener(os.NewFile(3, "inherited"))
	if err != nil {
		fmt.Println(err)
		return
	}
	var conn *net.TCPConn
	word := make([]byte, 4)
	apptest.Obey(func(order string) string {
		var err error
		switch order {
		case "accept":
			var c net.Conn
			c, err = ln.Accept()
			conn, _ = c.(*net.TCPConn)
		case "read":
			_, err = io.ReadFull(conn, word)
		case "answer":
			_, err = conn.Write(word)
		case "pour":
			go conn.Write(make([]byte, 64<<20))
		case "finish":
			err = conn.CloseWrite()
		}
		return fmt.Sprint(err)
	})
}

// web is an HTTP server, with TLS if told so, that begins to answer /slow and goes on at "go on".
func web() {
	ln, err := net.FileListener(os.NewFile(3, "inherited"))
	if err != nil {
		fmt.Println(err)
		return
	}
	goOn := make(chan bool)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			fmt.Println("slow")
			<-goOn
		}
	}))
	srv.Listener = ln
	if os.Getenv("TLS") != "" {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	apptest.Obey(func(string) string { goOn <- true; return "goes on" })
}

// quietAfter is longer than a client keeps an acknowledgement back, until which an answer is under way.
const quietAfter = 250 * time.Millisecond

func look(t *testing.T, idle time.Duration, l *heldListener, apps ...*apptest.App) Traffic {
	t.Helper()
	var pids []int
	for _, a := range apps {
		pids = append(pids, a.PID)
	}
	addresses := []netip.AddrPort{netip.MustParseAddrPort(l.Bound())}
	traffic, err := Look(pids, addresses, idle)
	apptest.Must(t, err)
	all, err := observeAll(pids, addresses)
	apptest.Must(t, err)
	if got := all.Traffic(idle).Open; got != traffic.Open {
		t.Errorf("%d connections in the kernel's list, %d asked for one by one", got, traffic.Open)
	}
	return traffic
}

// silence waits until what was said on all connections before is older than quietAfter.
func silence(t *testing.T) {
	t.Helper()
	l := listenAt(t, "127.0.0.1:0")
	witness := apptest.Start(t, "talker", apptest.Options{Files: []int{l.FD()}})
	apptest.Dial(t, "tcp", l.Bound())
	witness.Do(t, "accept")
	apptest.Eventually(t, "silence", func() bool { return look(t, quietAfter, l, witness) == Traffic{Open: 1} })
}

// play lets client and app talk, one word a step.
func play(t *testing.T, client *net.TCPConn, server *apptest.App, script string) {
	t.Helper()
	word := []byte("word")
	for _, step := range strings.Fields(script) {
		var err error
		switch step {
		case "ask":
			_, err = client.Write(word)
		case "leave":
			err = client.CloseWrite()
		case "silence":
			silence(t)
		case "answer":
			server.Do(t, step)
			_, err = io.ReadFull(client, word)
		default:
			server.Do(t, step)
		}
		apptest.Must(t, err)
	}
}

func TestLook(t *testing.T) {
	const exchange = "ask read silence answer silence "
	for _, test := range []struct {
		script string
		want   Traffic
	}{
		{"", Traffic{Open: 1}},
		{"answer", Traffic{Open: 1}},
		{"ask", Traffic{Open: 1, Busy: 1}},
		{"ask read", Traffic{Open: 1, Busy: 1}},
		{exchange, Traffic{Open: 1}},
		{exchange + "ask read", Traffic{Open: 1, Busy: 1}},
		{exchange + "answer", Traffic{Open: 1}},
		{exchange + exchange, Traffic{Open: 1, Unclear: 1}},
		{strings.Repeat("ask read answer ", firstRequestAtMost) + exchange, Traffic{Open: 1}},
		{"pour", Traffic{Open: 1, Busy: 1}},
		{"leave", Traffic{Open: 1}},
		{"ask read leave", Traffic{Open: 1, Busy: 1}},
		{exchange + "leave", Traffic{Open: 1}},
		{exchange + "ask leave", Traffic{Open: 1, Busy: 1}},
		{"ask read finish", Traffic{Open: 1}},
	} {
		t.Run(test.script, func(t *testing.T) {
			t.Parallel()
			l := listenAt(t, "127.0.0.1:0")
			server := apptest.Start(t, "talker", apptest.Options{Files: []int{l.FD()}})
			client := apptest.Dial(t, "tcp", l.Bound()).(*net.TCPConn)
			if got := look(t, 0, l, server); got != (Traffic{}) {
				t.Errorf("%+v before it is accepted", got)
			}
			server.Do(t, "accept")
			play(t, client, server, test.script)
			if got, want := look(t, time.Hour, l, server), (Traffic{Open: 1, Busy: 1}); got != want {
				t.Errorf("%+v, not %+v, within an hour", got, want)
			}
			silence(t)
			apptest.Eventually(t, fmt.Sprintf("%+v", test.want), func() bool { return look(t, quietAfter, l, server) == test.want })
		})
	}
}

// A client that asks again at once does so in the clock tick of the last answer.
func TestLookNeverTakesARequestInTheTickOfAnAnswerForIdle(t *testing.T) {
	l := listenAt(t, "127.0.0.1:0")
	server := apptest.Start(t, "talker", apptest.Options{Files: []int{l.FD()}})
	const clients = 20
	for i := range clients {
		client := apptest.Dial(t, "tcp", l.Bound()).(*net.TCPConn)
		server.Do(t, "accept")
		play(t, client, server, strings.Repeat("ask read answer ", i)+"ask read")
	}
	silence(t)
	if got := look(t, quietAfter, l, server); got.Open != clients || got.Busy+got.Unclear != clients {
		t.Errorf("%+v of %d busy ones", got, clients)
	}
}

func TestLookAtHTTP(t *testing.T) {
	for scheme, env := range map[string][]string{"http": nil, "https": {"TLS=yes"}} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			l := listenAt(t, "127.0.0.1:0")
			server := apptest.Start(t, "web", apptest.Options{Files: []int{l.FD()}, Env: env})
			get := func(client *http.Client, path string) error {
				response, err := client.Get(scheme + "://" + l.Bound() + path)
				if err != nil {
					return err
				}
				_, err = io.Copy(io.Discard, response.Body)
				return err
			}
			const clients = 5
			answers := make(chan error)
			all := make([]*http.Client, clients)
			for i := range all {
				all[i] = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
				t.Cleanup(all[i].CloseIdleConnections)
				// The first client's connection is new to the slow request.
				for range 4 * i {
					apptest.Must(t, get(all[i], "/"))
				}
			}
			slow := func(client *http.Client) {
				go func() { answers <- get(client, "/slow") }()
				if got := server.Hear(t); got != "slow" {
					t.Fatal(got)
				}
			}
			for _, client := range all {
				slow(client)
			}
			silence(t)
			if got := look(t, quietAfter, l, server); got.Open != clients || got.Busy+got.Unclear != clients {
				t.Errorf("%+v while %d requests are answered", got, clients)
			}
			for range all {
				if got := server.Ask(t, "go on"); got != "goes on" {
					t.Fatal(got)
				}
				apptest.Must(t, <-answers)
			}
			// One connection has got no more than a handshake with a request takes.
			want := Traffic{Open: clients, Unclear: 1}
			apptest.Eventually(t, "all idle", func() bool { return look(t, quietAfter, l, server) == want })
		})
	}
}

func TestLookCountsWhatIsTheProcesses(t *testing.T) {
	for _, test := range []struct{ written, network, ip string }{
		{"tcp4://127.0.0.1:0", "tcp4", "127.0.0.1"},
		{"tcp4://0.0.0.0:0", "tcp4", "127.0.0.1"},
		{":0", "tcp4", "127.0.0.1"},
		{":0", "tcp6", "::1"},
		{"[::1]:0", "tcp6", "::1"},
		{"[::ffff:127.0.0.1]:0", "tcp4", "127.0.0.1"},
	} {
		t.Run(test.written+" "+test.network, func(t *testing.T) {
			l := listenAt(t, test.written)
			port := netip.MustParseAddrPort(l.Bound()).Port()
			first := apptest.Start(t, "hoarder", apptest.Options{Files: []int{l.FD()}})
			second := apptest.Start(t, "hoarder", apptest.Options{Files: []int{l.FD()}})
			for _, app := range []*apptest.App{first, second, second} {
				apptest.Dial(t, test.network, netip.AddrPortFrom(netip.MustParseAddr(test.ip), port).String())
				app.Do(t, "accept")
			}
			// As a client, an app is not looked at, and what nobody has accepted has no process.
			first.Do(t, fmt.Sprintf("dial %s %s", test.network, netip.AddrPortFrom(netip.MustParseAddr(test.ip), port)))
			counts := func() [3]int {
				return [3]int{look(t, time.Hour, l, first).Busy, look(t, time.Hour, l, second, second).Busy,
					look(t, time.Hour, l, first, second).Busy}
			}
			if got, want := counts(), [3]int{1, 2, 3}; got != want {
				t.Errorf("%v, not %v", got, want)
			}
			second.Do(t, "close")
			if got, want := counts(), [3]int{1, 1, 2}; got != want {
				t.Errorf("%v, not %v, after one was closed", got, want)
			}
			apptest.Must(t, unix.Kill(second.PID, unix.SIGKILL))
			second.Wait()
			if got, want := counts(), [3]int{1, 0, 1}; got != want {
				t.Errorf("%v, not %v, after the second has ended", got, want)
			}
		})
	}
}

func TestLookAtOtherAddresses(t *testing.T) {
	port := apptest.FreePort(t, "127.0.0.1").Port()
	l, neighbour := listenAt(t, fmt.Sprintf("tcp4://127.0.0.1:%d", port)), listenAt(t, fmt.Sprintf("tcp4://127.0.0.2:%d", port))
	app := apptest.Start(t, "hoarder", apptest.Options{Files: []int{neighbour.FD()}})
	apptest.Dial(t, "tcp", neighbour.Bound())
	app.Do(t, "accept")
	if got := look(t, time.Hour, l, app); got != (Traffic{}) {
		t.Errorf("%+v of another address", got)
	}
	both := []netip.AddrPort{netip.MustParseAddrPort(l.Bound()), netip.MustParseAddrPort(neighbour.Bound())}
	got, err := Look([]int{app.PID}, append(both, both...), time.Hour)
	apptest.Must(t, err)
	if want := (Traffic{Open: 1, Busy: 1}); got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
}

func TestActivityByTheKernelsRecord(t *testing.T) {
	const ms = time.Millisecond
	// tied has its last data in one tick, of a client nearby.
	tied := exchange{state: unix.BPF_TCP_ESTABLISHED, segmentsIn: 20, segmentsOut: 20,
		received: 30_000 * ms, sent: 30_000 * ms, acked: 30_000 * ms, roundTripAtLeast: ms}
	for name, test := range map[string]struct {
		change func(*exchange)
		want   activity
	}{
		"tied":                                 {func(e *exchange) {}, unclear},
		"tied, and acknowledged":               {func(e *exchange) { e.acked -= 40 * ms }, idling},
		"tied, and acknowledged long after":    {func(e *exchange) { e.acked -= 5000 * ms }, idling},
		"tied, and acknowledged, with probes":  {func(e *exchange) { e.keepalive, e.acked = true, e.acked-40*ms }, idling},
		"tied, and perhaps probed":             {func(e *exchange) { e.keepalive, e.acked = true, e.acked-5000*ms }, unclear},
		"tied, acknowledged before":            {func(e *exchange) { e.acked += 40 * ms }, unclear},
		"tied, from afar":                      {func(e *exchange) { e.roundTripAtLeast = 12 * ms }, idling},
		"tied, acknowledged, a few requests":   {func(e *exchange) { e.acked, e.segmentsIn = 0, 3 }, unclear},
		"tied, acknowledged, one request":      {func(e *exchange) { e.acked, e.segmentsIn = 0, 1 }, idling},
		"tied, never answered":                 {func(e *exchange) { e.segmentsOut = 0 }, working},
		"asked last":                           {func(e *exchange) { e.received -= ms }, working},
		"asked last, from afar":                {func(e *exchange) { e.received, e.roundTripAtLeast = e.received-ms, 100*ms }, working},
		"asked last, and said all":             {func(e *exchange) { e.received, e.state = e.received-ms, unix.BPF_TCP_FIN_WAIT2 }, idling},
		"an answer after all was said":         {func(e *exchange) { e.unsent, e.state = 1, unix.BPF_TCP_FIN_WAIT1 }, working},
		"answered last":                        {func(e *exchange) { e.sent -= ms }, idling},
		"answered last, a few requests":        {func(e *exchange) { e.sent, e.segmentsIn = e.sent-ms, 6 }, unclear},
		"answered a second ago":                {func(e *exchange) { e.sent = 1000 * ms }, working},
		"answered longer ago":                  {func(e *exchange) { e.sent = 1004 * ms }, idling},
		"the client left":                      {func(e *exchange) { e.sent, e.unread, e.state = e.sent-ms, 1, unix.BPF_TCP_CLOSE_WAIT }, idling},
		"the client left a word":               {func(e *exchange) { e.sent, e.unread, e.state = e.sent-ms, 2, unix.BPF_TCP_CLOSE_WAIT }, working},
		"one byte unread":                      {func(e *exchange) { e.sent, e.unread = e.sent-ms, 1 }, working},
		"the app knows that the client left":   {func(e *exchange) { e.sent, e.state = e.sent-ms, unix.BPF_TCP_CLOSE_WAIT }, idling},
		"the client waits with its end closed": {func(e *exchange) { e.received, e.state = e.received-ms, unix.BPF_TCP_CLOSE_WAIT }, working},
		"a kernel that tells nothing":          {func(e *exchange) { *e = exchange{} }, working},
	} {
		e := tied
		test.change(&e)
		if got := e.activity(time.Second); got != test.want {
			t.Errorf("%s: %d, not %d", name, got, test.want)
		}
	}
}

func TestOwesByTheKernelsRecord(t *testing.T) {
	const ms = time.Millisecond
	answered := exchange{state: unix.BPF_TCP_ESTABLISHED, segmentsIn: 2, segmentsOut: 2, received: 40 * ms, sent: 40 * ms}
	for name, test := range map[string]struct {
		change func(*exchange)
		owes   bool
	}{
		"answered":               {func(*exchange) {}, false},
		"asked":                  {func(e *exchange) { e.received -= ms }, true},
		"asked long ago":         {func(e *exchange) { e.received, e.sent = 100*ms, 200*ms }, false},
		"connected":              {func(e *exchange) { e.segmentsIn, e.segmentsOut = 0, 0 }, true},
		"connected long ago":     {func(e *exchange) { e.segmentsIn, e.segmentsOut, e.received = 0, 0, 100*ms }, false},
		"asked first":            {func(e *exchange) { e.segmentsOut = 0 }, true},
		"asked, and not read":    {func(e *exchange) { e.unread = 1 }, true},
		"the app has said all":   {func(e *exchange) { e.received, e.state = 0, unix.BPF_TCP_FIN_WAIT2 }, false},
		"the client left":        {func(e *exchange) { e.unread, e.state = 1, unix.BPF_TCP_CLOSE_WAIT }, false},
		"the client left a word": {func(e *exchange) { e.unread, e.state = 2, unix.BPF_TCP_CLOSE_WAIT }, true},
	} {
		e := answered
		test.change(&e)
		if got := e.owes(100 * ms); got != test.owes {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestOwed(t *testing.T) {
	l := listenAt(t, "127.0.0.1:0")
	at := []netip.AddrPort{netip.MustParseAddrPort(l.Bound())}
	server := apptest.Start(t, "talker", apptest.Options{Files: []int{l.FD()}})
	client := apptest.Dial(t, "tcp", l.Bound()).(*net.TCPConn)
	owed := func(when string, want int) {
		t.Helper()
		if got, err := Owed(at, time.Minute); got != want || err != nil {
			t.Errorf("%s: %d, %v", when, got, err)
		}
	}
	owed("in the queue", 0)
	server.Do(t, "accept")
	owed("accepted", 1)
	play(t, client, server, "ask read")
	owed("asked", 1)
	play(t, client, server, "answer")
	owed("answered", 0)
	if got, err := Owed(at, 0); got != 0 || err != nil {
		t.Errorf("of no time: %d, %v", got, err)
	}
}

func TestLookWithoutTheRightToLook(t *testing.T) {
	apptest.RequireRoot(t)
	l := listenAt(t, "127.0.0.1:0")
	stranger := apptest.Start(t, "looker", apptest.Options{UID: apptest.Nobody})
	if got := stranger.Ask(t, fmt.Sprint(os.Getpid(), " ", l.Bound())); !strings.Contains(got, "permission denied") {
		t.Error(got)
	}
}
