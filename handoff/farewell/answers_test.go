package farewell

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/internal/nap"
)

// said is an answer with the line behind its status line.
func said(answer string) string {
	end := strings.Index(answer, "\n") + 1
	return answer[:end] + closing + answer[end:]
}

func TestAnswersThatSayClose(t *testing.T) {
	big := repeat("0123456789abcdef\r\n", 3<<20)
	bigHead := "HTTP/1.1 200 OK\r\n" + repeat("X-Long: header\r\n", 16*4096) + "Content-Length: 2\r\n\r\nok"
	for name, c := range map[string]struct {
		request, want string
		parts         []string
	}{
		"small":               {get, closedOK, []string{plainOK}},
		"HTTP/1.0":            {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", said("HTTP/1.0 200 OK\r\n\r\nok"), []string{"HTTP/1.0 200 OK\r\n\r\nok"}},
		"head alone":          {get, said("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n") + "ok", []string{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "ok"}},
		"chunked and trailer": {get, said("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n") + "2\r\nok\r\n0\r\nX: y\r\n\r\n", []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n", "2\r\nok\r\n", "0\r\nX: y\r\n\r\n"}},
		"big":                 {get, said("HTTP/1.1 200 OK\r\nContent-Length: 3145728\r\n\r\n") + big, []string{"HTTP/1.1 200 OK\r\nContent-Length: 3145728\r\n\r\n" + big}},
		"big, in parts":       {get, said("HTTP/1.1 200 OK\r\nContent-Length: 6291456\r\n\r\n") + big + big, []string{"HTTP/1.1 200 OK\r\nContent-Length: 6291456\r\n\r\n", big, big}},
		"HEAD":                {"HEAD / HTTP/1.1\r\n\r\n", said("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"), []string{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"}},
		"204":                 {get, said("HTTP/1.1 204 No Content\r\n\r\n"), []string{"HTTP/1.1 204 No Content\r\n\r\n"}},
		"304":                 {get, said("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"), []string{"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"}},
		"500 without reason":  {get, said("HTTP/1.1 500 \r\n\r\n"), []string{"HTTP/1.1 500 \r\n\r\n"}},
		"POST":                {"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", closedOK, []string{plainOK}},
		"POST with lines":     {"POST / HTTP/1.1\r\nContent-Length: 8\r\n\r\na\r\n\r\nbcd", closedOK, []string{plainOK}},
		"100, then final":     {"POST / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n" + closedOK, []string{"HTTP/1.1 100 Continue\r\n\r\n", plainOK}},
		"103, then final":     {get, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + closedOK, []string{"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", plainOK}},
		"keep-alive": {get, "HTTP/1.1 200 OK\r\nServer: x\r\nConnection: close     \r\nContent-Length: 2\r\n\r\nok",
			[]string{"HTTP/1.1 200 OK\r\nServer: x\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"}},
		"Keep-Alive":                    {get, "HTTP/1.1 200 OK\r\ncOnNection: close     \r\n\r\n", []string{"HTTP/1.1 200 OK\r\ncOnNection: Keep-Alive\r\n\r\n"}},
		"close already":                 {get, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", []string{"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"}},
		"Close, and more":               {get, "HTTP/1.1 200 OK\r\nA: b\r\nconnection: Close\r\nContent-Length: 2\r\n\r\nok", []string{"HTTP/1.1 200 OK\r\nA: b\r\nconnection: Close\r\nContent-Length: 2\r\n\r\nok"}},
		"other value":                   {get, "HTTP/1.1 200 OK\r\nConnection: close, X-Foo\r\nX-Foo: 1\r\n\r\nok", []string{"HTTP/1.1 200 OK\r\nConnection: X-Foo\r\nX-Foo: 1\r\n\r\nok"}},
		"keep-alive, more":              {get, "HTTP/1.1 200 OK\r\nConnection: close, keep-alive, X-Foo\r\nX-Foo: 1\r\n\r\nok", []string{"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Foo\r\nX-Foo: 1\r\n\r\nok"}},
		"426 with Upgrade":              {get, "HTTP/1.1 426 Upgrade Required\r\nConnection: close, Upgrade\r\nUpgrade: x\r\n\r\n", []string{"HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"}},
		"status line, then the rest":    {get, said("HTTP/1.1 200 OK\r\n") + "Content-Length: 2\r\n\r\nok", []string{"HTTP/1.1 200 OK\r\n", "Content-Length: 2\r\n\r\n", "ok"}},
		"keep-alive in another message": {get, said("HTTP/1.1 200 OK\r\n") + "Connection: keep-alive\r\n\r\n", []string{"HTTP/1.1 200 OK\r\n", "Connection: keep-alive\r\n\r\n"}},
		"split after some headers":      {get, said("HTTP/1.1 200 OK\r\nA: b\r\nC") + "ontent-Length: 2\r\n\r\nok", []string{"HTTP/1.1 200 OK\r\nA: b\r\nC", "ontent-Length: 2\r\n\r\nok"}},
		"head of 64 KB":                 {get, said(bigHead), []string{bigHead}},
		"lines that end in LF":          {get, "HTTP/1.1 200 OK\nConnection: close\r\nA: b\n\nok and some more text", []string{"HTTP/1.1 200 OK\nA: b\n\nok and some more text"}},
		"Connection-Info is another":    {get, said("HTTP/1.1 200 OK\r\nConnection-Info: keep-alive\r\n\r\n"), []string{"HTTP/1.1 200 OK\r\nConnection-Info: keep-alive\r\n\r\n"}},
		"body that talks of headers":    {get, said("HTTP/1.1 200 OK\r\n\r\nA: b\r\nConnection: keep-alive\r\n\r\n"), []string{"HTTP/1.1 200 OK\r\n\r\nA: b\r\nConnection: keep-alive\r\n\r\n"}},
		"body like a head":              {get, said("HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n") + plainOK, []string{"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n", plainOK}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t, "127.0.0.1")
			w.announce(t)
			w.ask(t, c.request)
			go w.send(c.parts...)
			w.mustGet(t, c.want)
			w.app.CloseWrite()
			mustEnd(t, w.client)
		})
	}
}

func TestAnswersByteByByte(t *testing.T) {
	w := newWire(t, "127.0.0.1")
	w.announce(t)
	w.ask(t, get)
	w.answer(t, strings.Split(plainOK, "")...)
	w.mustGet(t, plainOK)
}

// Where the head ends in the middle of a word that is looked for, whatever comes is still what the app has sent.
func TestHeadsCutAnywhere(t *testing.T) {
	const whole = "HTTP/1.1 200 OK\r\nA: b\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"
	for cut := 1; cut < len(whole); cut++ {
		w := newWire(t, "127.0.0.1")
		w.announce(t)
		w.ask(t, get)
		w.answer(t, whole[:cut], whole[cut:])
		switch {
		case cut < shortestHead:
			w.mustGet(t, whole)
		case cut < strings.Index(whole, "keep-alive\r")+len("keep-alive\r"):
			w.mustGet(t, said(whole))
		default:
			w.mustGet(t, strings.Replace(whole, "keep-alive", "close     ", 1))
		}
	}
}

// Whatever lines a head has, the one that is looked for is found if it ends within 2 KB, and nothing else changes.
func TestHeadsOfAllShapes(t *testing.T) {
	w := newWire(t, "127.0.0.1")
	w.announce(t)
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		begin := "HTTP/1.1 200 OK\r\n"
		for range random.IntN(40) {
			begin += "a:" + repeat("Connection: x\r", random.IntN(4)) + repeat("y", random.IntN(120)) + "\r\n"
		}
		rest := repeat("b: c\r\n", 6*random.IntN(50)) + "\r\n" + repeat("Connection: keep-alive\r\n", 24*random.IntN(90))
		answer := begin + "Connection: keep-alive\r\n" + rest
		want := begin + "Connection: close     \r\n" + rest
		if len(begin)+int(longHeader) > scanLimit {
			want = said(answer)
		}
		w.ask(t, get)
		w.answer(t, answer)
		w.mustGet(t, want)
	}
}

func TestHeadsOfAllLengths(t *testing.T) {
	w := newWire(t, "127.0.0.1")
	w.announce(t)
	for length := range 100 {
		begin := "HTTP/1.1 200 OK\r\n" + repeat("x", scanLimit-100+length) + "\r\n"
		w.ask(t, get)
		w.answer(t, begin+"Connection: keep-alive\r\n\r\n")
		if len(begin)+int(longHeader) > scanLimit {
			w.mustGet(t, said(begin+"Connection: keep-alive\r\n\r\n"))
			continue
		}
		w.mustGet(t, begin+"Connection: close     \r\n\r\n")
	}
}

// A request is alone if nothing comes behind its empty line, wherever that is.
func TestRequestsOfAllLengths(t *testing.T) {
	for length := range 40 {
		head := "GET /" + repeat("x", length) + " HTTP/1.1\r\nA: b\r\n\r\n"
		alone := newWire(t, "127.0.0.1")
		alone.announce(t)
		alone.ask(t, head)
		alone.answer(t, plainOK)
		alone.mustGet(t, closedOK)
		several := newWire(t, "127.0.0.1")
		several.announce(t)
		several.ask(t, head+get)
		several.answer(t, plainOK)
		several.mustGet(t, plainOK)
	}
}

func TestAnswersOverIPv6(t *testing.T) {
	w := newWire(t, "::1")
	w.announce(t)
	w.ask(t, get)
	w.answer(t, plainOK)
	w.mustGet(t, closedOK)
}

func TestManyRequestsOneAfterAnother(t *testing.T) {
	w := newWire(t, "127.0.0.1")
	w.announce(t)
	for range 100 {
		w.ask(t, get)
		w.answer(t, plainOK)
		w.mustGet(t, closedOK)
	}
}

func TestAnswerToWhatWasAskedBefore(t *testing.T) {
	r := newRoad(t, "127.0.0.1")
	w, speaks := r.wire(t), r.wire(t)
	w.ask(t, get)
	f := w.announce(t)
	speaks.speak(t)
	_, err := f.Look()
	apptest.Must(t, err)
	w.answer(t, plainOK, plainOK) // the second is a body
	w.mustGet(t, closedOK+plainOK)
	w.ask(t, get)
	w.answer(t, plainOK)
	w.mustGet(t, closedOK)
}

// Of many connections the last is announced some milliseconds after the first, whose app may have answered by then.
func TestAnswersWhileOthersAreAnnounced(t *testing.T) {
	r := newRoad(t, "127.0.0.1")
	announcer(t).spoken.add(r.at)
	wires := make([]*wire, 64)
	for i := range wires {
		wires[i] = r.wire(t)
		wires[i].ask(t, get)
	}
	sent := make(chan error)
	for _, w := range wires {
		go func() {
			nap.For(time.Duration(rand.IntN(5_000)) * time.Microsecond)
			sent <- w.send(plainOK)
		}()
	}
	f := wires[0].announce(t)
	for range wires {
		apptest.Must(t, <-sent)
	}
	if len(f.known) != len(wires) {
		t.Errorf("%d of %d were announced", len(f.known), len(wires))
	}
	for _, c := range f.known {
		if r, ok := f.announcer.look(c.cookie); !ok || r.Sent != r.Said {
			t.Errorf("%d answers since the announcement, and %d say that the connection closes", r.Sent, r.Said)
		}
	}
}

// An echo server may send what looks like an answer, and is none.
func TestAnswerToWhatNobodyKnows(t *testing.T) {
	w := newWire(t, "127.0.0.1")
	w.ask(t, plainOK)
	w.announce(t)
	for range 3 {
		w.answer(t, plainOK)
		w.mustGet(t, plainOK)
		w.ask(t, plainOK)
	}
}

func TestTunnelThatWasAskedForBefore(t *testing.T) {
	const established = "HTTP/1.1 200 Connection established\r\n\r\n"
	w := newWire(t, "127.0.0.1")
	w.ask(t, "CONNECT x:80 HTTP/1.1\r\n\r\n")
	w.announce(t)
	w.answer(t, established)
	w.mustGet(t, established)
	w.ask(t, get)
	w.answer(t, plainOK)
	w.mustGet(t, plainOK)
}

// The rest of an upload is no request, and its answer is let alone; the next is not.
func TestUploadThatHadBegunBefore(t *testing.T) {
	w := newWire(t, "127.0.0.1")
	w.ask(t, "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc")
	w.announce(t)
	w.ask(t, "defghi")
	w.answer(t, plainOK)
	w.mustGet(t, plainOK)
	w.ask(t, get)
	w.answer(t, plainOK)
	w.mustGet(t, closedOK)
}

func TestRequestInManySegments(t *testing.T) {
	w := newWire(t, "127.0.0.1")
	w.announce(t)
	for _, part := range []string{"POST / HTTP/1.1\r\nHo", "st: x\r\nContent-Length: 10\r\n\r\n", "Get /", "12345"} {
		w.ask(t, part)
	}
	w.answer(t, plainOK)
	w.mustGet(t, closedOK)
}

func TestPipelinedRequests(t *testing.T) {
	t.Run("in one segment", func(t *testing.T) {
		w := newWire(t, "127.0.0.1")
		w.announce(t)
		w.ask(t, get+get+get)
		for range 3 {
			w.answer(t, plainOK)
		}
		w.mustGet(t, plainOK+plainOK+plainOK)
	})
	t.Run("in several segments", func(t *testing.T) {
		w := newWire(t, "127.0.0.1")
		w.announce(t)
		for range 3 {
			w.ask(t, get)
		}
		for range 3 {
			w.answer(t, plainOK)
		}
		w.mustGet(t, plainOK+plainOK+plainOK)
		w.ask(t, get)
		w.answer(t, plainOK)
		w.mustGet(t, closedOK)
	})
	t.Run("unread", func(t *testing.T) {
		w := newWire(t, "127.0.0.1")
		w.announce(t)
		w.ask(t, get)
		_, err := io.WriteString(w.client, get)
		apptest.Must(t, err)
		w.answer(t, plainOK)
		w.mustGet(t, plainOK)
		mustRead(t, w.app, get)
		w.answer(t, plainOK)
		w.mustGet(t, plainOK)
		w.ask(t, get)
		w.answer(t, plainOK)
		w.mustGet(t, closedOK)
	})
}

func TestWhatIsNoHTTPStaysAsItIs(t *testing.T) {
	handshake := "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + repeat("\x00\xff\r\n", 512)
	for name, turns := range map[string][][2]string{
		"echo of a response":         {{plainOK, plainOK}, {plainOK, plainOK}},
		"echo of a request":          {{get, get}},
		"TLS":                        {{handshake, handshake}, {"\x17\x03\x03HTTP/1.1 200 OK\r\n\r\n", "\x17\x03\x03HTTP/1.1 200 OK\r\n\r\n"}},
		"h2c":                        {{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"}},
		"redis":                      {{"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", "$15\r\nHTTP/1.1 200 OK\r\n"}, {"GET k\r\n", "$15\r\nHTTP/1.1 200 OK\r\n"}, {"*1\r\n$4\r\nPING\r\n", "+PONG\r\n"}},
		"FastCGI":                    {{"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x01\x00\x00\x00\x00\x00", "\x01\x06\x00\x01\x00\x26\x02\x00HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\x00\x00"}},
		"Postgres":                   {{"\x00\x00\x00\x08\x04\xd2\x16\x2f", "N"}, {"Q\x00\x00\x00\x0dGET / H\x00", "T\x00\x00\x00\x06\x00\x01D\x00\x00\x00\x19HTTP/1.1 200 OK\r\n\r\nZ\x00\x00\x00\x05I"}},
		"gRPC":                       {{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x00\x00\x00\x04\x00\x00\x00\x00\x00"}, {"\x00\x00\x0a\x01\x05\x00\x00\x00\x01POST /x.Y", "\x00\x00\x14\x00\x01\x00\x00\x00\x01HTTP/1.1 200 OK\r\n\r\n"}},
		"SMTP that says GET":         {{"", "220 mail ESMTP\r\n"}, {"DATA\r\n", "354 go ahead\r\n"}, {"GET / HTTP/1.1\r\n\r\n.\r\n", "250 OK\r\n"}},
		"memcached":                  {{"get k\r\n", "VALUE k 0 15\r\nHTTP/1.1 200 OK\r\nEND\r\n"}},
		"memcached, a value like it": {{"gets k\r\n", plainOK}},
		"server speaks first":        {{"", "220 mail ESMTP\r\n"}, {"EHLO x\r\n", "250 HTTP/1.1 200 OK\r\n"}},
		"RTSP":                       {{"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n", "RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"}},
		"101, and what follows": {
			{"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
			{get, plainOK}, {"\x81\x05hello", "\x81\x05hello"}},
		"CONNECT, and what follows": {{"CONNECT x:80 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"}, {get, plainOK}},
		"nearly a head":             {{get, "HTTP/1.2 200 OK\r\n\r\n"}, {get, "HTTP/2.0 200 OK\r\n\r\n"}, {get, "HTTP/1.1 600 No\r\n\r\n"}, {get, "HTTP/1.1\r\n"}, {get, "HTTP"}, {get, "HTTP/1.1 200 OK, and no line feed"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t, "127.0.0.1")
			w.announce(t)
			for _, turn := range turns {
				w.ask(t, turn[0])
				w.answer(t, turn[1])
				w.mustGet(t, turn[1])
			}
		})
	}
}

// sendfile gives the kernel the file's own pages: what is changed must be a copy.
func TestFilesAreNotChanged(t *testing.T) {
	content := "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 200000\r\n\r\n" + repeat("line\r\n", 200000)
	path := t.TempDir() + "/answer"
	apptest.Must(t, os.WriteFile(path, []byte(content), 0o600))
	file, err := os.Open(path)
	apptest.Must(t, err)
	defer file.Close()
	w := newWire(t, "127.0.0.1")
	w.announce(t)
	w.ask(t, get)
	go func() {
		_, _ = w.app.ReadFrom(file)
	}()
	w.mustGet(t, strings.Replace(content, "keep-alive", "close     ", 1))
	kept, err := os.ReadFile(path)
	apptest.Must(t, err)
	if string(kept) != content {
		t.Errorf("the file was changed: %s", short(string(kept)))
	}
}

func TestHeadThenFile(t *testing.T) {
	body := repeat("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n", 1<<20)
	path := t.TempDir() + "/body"
	apptest.Must(t, os.WriteFile(path, []byte(body), 0o600))
	file, err := os.Open(path)
	apptest.Must(t, err)
	defer file.Close()
	w := newWire(t, "127.0.0.1")
	w.announce(t)
	w.ask(t, get)
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n"
	go func() {
		_ = w.send(head)
		_, _ = w.app.ReadFrom(file)
	}()
	w.mustGet(t, said(head)+body)
}

// writev gives a message of several pieces.
func TestMessagesOfManyPieces(t *testing.T) {
	for _, size := range []int{1, 7, 16, 17, 40, 4096} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			answer := "HTTP/1.1 200 OK\r\nServer: x\r\nConnection: keep-alive\r\nContent-Length: 9000\r\n\r\n" + repeat("body\r\n", 9000)
			var pieces net.Buffers
			for rest := answer; rest != ""; rest = rest[min(size, len(rest)):] {
				pieces = append(pieces, []byte(rest[:min(size, len(rest))]))
			}
			w := newWire(t, "127.0.0.1")
			w.announce(t)
			w.ask(t, get)
			_, err := pieces.WriteTo(w.app)
			apptest.Must(t, err)
			w.mustGet(t, strings.Replace(answer, "keep-alive", "close     ", 1))
		})
	}
}

// A message stays one segment: another would wait for the client's acknowledgement of the first.
func TestAnswersStayInOneSegment(t *testing.T) {
	for _, answer := range []string{plainOK, "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nConnection: X-Foo\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n" + repeat("x", 9000)} {
		w := newWire(t, "127.0.0.1")
		w.announce(t)
		w.ask(t, get)
		w.answer(t, answer)
		mustRead(t, w.client, "HTTP/1.1 200 OK\r\nConnection: close")
		if n := info(t, w.app).Data_segs_out; n != 1 {
			t.Errorf("an answer of %d bytes went in %d segments", len(answer), n)
		}
	}
}
