package sse

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestFrame(t *testing.T) {
	for _, c := range []struct {
		event Event
		want  string
	}{
		{Event{Data: "one"}, "data: one\n\n"},
		{Event{Data: "one\ntwo\rthree\r\nfour"}, "data: one\ndata: two\ndata: three\ndata: four\n\n"},
		{Event{Data: "\n\r\n\r"}, "data: \ndata: \ndata: \ndata: \n\n"},
		{Event{Data: " x: y"}, "data:  x: y\n\n"},
		{Event{ID: "7", Name: "price", Data: "1", Retry: time.Second}, "event: price\nid: 7\nretry: 1000\ndata: 1\n\n"},
		{Event{Name: "done"}, "event: done\ndata: \n\n"},
		{Event{ID: "7"}, "id: 7\n\n"},
		{Event{ID: "sieben Äpfel"}, "id: sieben Äpfel\n\n"},
		{Event{Retry: 1}, "retry: 1\n\n"},
		{Event{}, ""},
	} {
		if got, err := c.event.frame(); string(got) != c.want || err != nil {
			t.Errorf("%+v is %q, %v; want %q", c.event, got, err, c.want)
		}
	}
}

func TestEventsThatCannotBeSent(t *testing.T) {
	for want, event := range map[string]Event{
		"more than one line":          {Name: "a\nb"},
		`"a\rb" has more`:             {Name: "a\rb"},
		`"a\nb" is invalid`:           {ID: "a\nb"},
		`"a\rb" is invalid`:           {ID: "a\rb"},
		`"a\x00" is invalid`:          {ID: "a\x00"},
		"begins or ends with a space": {ID: " a"},
		"not UTF-8":                   {ID: "a\xff"},
		"Retry is negative: -1s":      {Retry: -time.Second},
	} {
		if got, err := event.frame(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v is %q, %v; want an error with %s", event, got, err, want)
		}
	}
}

func FuzzSend(f *testing.F) {
	f.Add("1", "price", "one\r\ntwo", int64(5))
	f.Add("", "", "", int64(0))
	f.Add(" ", ":", " \r", int64(-1))
	f.Add("ä\x00", "a\rb", "\ufeff\x00\xff", int64(1)<<62)
	f.Fuzz(func(t *testing.T, id, name, data string, retry int64) {
		event := Event{id, name, data, time.Duration(retry)}
		const end = "the end"
		response := httptest.NewRecorder()
		var refused error
		Handler(func(s *Stream, _ *http.Request) error {
			refused = s.Send(event)
			return s.Send(Event{Data: end})
		}).ServeHTTP(response, httptest.NewRequest(http.MethodGet, "/", nil))
		if (refused == nil) != sendable(event) {
			t.Fatalf("%+v: Send returns %v", event, refused)
		}
		var want []message
		if refused != nil {
			event = Event{}
		} else if name != "" || data != "" {
			want = append(want, message{id, orMessage(name), wholeLines(data)})
		}
		want = append(want, message{event.ID, "message", end})
		checkMessages(t, newParser(response.Body), want)
	})
}

func checkMessages(t *testing.T, p *parser, want []message) {
	t.Helper()
	var got []message
	for {
		m, err := p.next()
		if err != nil {
			break
		}
		got = append(got, m)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// sendable asks net/http whether the ID comes back.
func sendable(e Event) bool {
	if strings.ContainsRune(e.Name, '\n') || strings.ContainsRune(e.Name, '\r') || e.Retry < 0 {
		return false
	}
	if strings.TrimSpace(e.ID) != e.ID || !utf8.ValidString(e.ID) || strings.ContainsRune(e.ID, '\t') {
		return false
	}
	for _, b := range []byte(e.ID) {
		if b < ' ' || b == 0x7f {
			return false
		}
	}
	request := fmt.Sprintf("GET / HTTP/1.1\r\nHost: test\r\nLast-Event-ID: %s\r\n\r\n", e.ID)
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request)))
	return err == nil && lastEventID(r) == e.ID
}

func wholeLines(data string) string {
	var b strings.Builder
	for i := 0; i < len(data); i++ {
		switch {
		case data[i] != '\r':
			b.WriteByte(data[i])
		case i+1 == len(data) || data[i+1] != '\n':
			b.WriteByte('\n')
		}
	}
	return b.String()
}
