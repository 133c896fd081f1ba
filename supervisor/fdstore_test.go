package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gracerun/grace/supervisor/host"
	"golang.org/x/sys/unix"
)

// fakeStore stands for systemd, which keeps what a message brings by its name.
type fakeStore struct {
	t    *testing.T
	fd   int
	kept map[string]int
}

func newFakeStore(t *testing.T, most string) *fakeStore {
	t.Helper()
	f := &fakeStore{t: t, kept: map[string]int{}}
	path := filepath.Join(t.TempDir(), "s")
	var err error
	if f.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err == nil {
		err = unix.Bind(f.fd, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(f.fd)
		for _, fd := range f.kept {
			unix.Close(fd)
		}
	})
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("FDSTORE", most)
	return f
}

// names reads what was sent, and gives what is kept.
func (f *fakeStore) names() string {
	f.t.Helper()
	for {
		text, control := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
		n, used, _, _, err := unix.Recvmsg(f.fd, text, control, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EAGAIN {
			var all []string
			for _, name := range []string{"a", "b", "c"} {
				if _, ok := f.kept[name]; ok {
					all = append(all, name)
				}
			}
			return strings.Join(all, " ")
		}
		if err != nil {
			f.t.Fatal(err)
		}
		_, name, _ := strings.Cut(string(text[:n]), "FDNAME=")
		if strings.HasPrefix(string(text[:n]), "FDSTOREREMOVE=1\n") {
			unix.Close(f.kept[name])
			delete(f.kept, name)
			continue
		}
		messages, err := unix.ParseSocketControlMessage(control[:used])
		if err != nil || len(messages) != 1 {
			f.t.Fatalf("%q came with %d control messages, %v", text[:n], len(messages), err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			f.t.Fatalf("%q came with %v, %v", text[:n], fds, err)
		}
		f.kept[name] = fds[0]
	}
}

// storingOf wants these to be stored, of which some are already.
func storingOf(t *testing.T, s *fdStore, names ...string) *host.Storing {
	t.Helper()
	w := s.storing()
	for _, name := range names {
		w.Wanted[name] = true
		if w.Has(name) {
			continue
		}
		fd, err := unix.FcntlInt(os.Stderr.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		w.Fresh[name] = fd
	}
	return w
}

func TestStoreKeepsWhatIsWanted(t *testing.T) {
	f := newFakeStore(t, "2")
	s, err := openFDStore([]string{"a"})
	if err != nil {
		t.Fatal(err)
	}
	f.kept["a"], _ = unix.Dup(2) // by the grace process before
	for _, step := range []struct {
		wanted      []string
		kept, fails string
	}{
		{[]string{"a", "b"}, "a b", ""},
		{[]string{"a", "b"}, "a b", ""},
		{[]string{"a", "b", "c"}, "a b", "FileDescriptorStoreMax="},
		{[]string{"b"}, "b", ""},
		{[]string{"b", "c"}, "b c", ""},
		{nil, "", ""},
	} {
		w := storingOf(t, s, step.wanted...)
		err := errors.Join(s.keep(w), s.clear(w))
		if got := f.names(); got != step.kept || strings.Join(slices.Sorted(slices.Values(s.names())), " ") != step.kept {
			t.Errorf("of %q it keeps %q, and is said to keep %q", step.wanted, got, s.names())
		}
		if (err != nil) != (step.fails != "") || !strings.Contains(fmt.Sprint(err), step.fails) {
			t.Errorf("with %q: %v", step.wanted, err)
		}
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}

func TestWithoutAStoreNothingIsKept(t *testing.T) {
	for _, most := range []string{"", "0", "x"} {
		newFakeStore(t, most)
		s, err := openFDStore(nil)
		if s != nil || err != nil || s.storing() != nil || s.keep(s.storing()) != nil || s.clear(s.storing()) != nil || s.close() != nil {
			t.Errorf("with FDSTORE=%q: %v, %v", most, s, err)
		}
	}
}
