package supervisor

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const smaps = `00400000-00b4d000 r-xp 00000000 fe:00 9979367                            /usr/bin/grace
Size:               7476 kB
Rss:                5520 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
00b4d000-0130b000 r--p 0074d000 fe:00 9979367                            /usr/bin/grace (deleted)
Anonymous:             0 kB
0130b000-01360000 rw-p 00f0b000 fe:00 9979367                            /usr/bin/grace
Anonymous:             0 kB
01360000-01370000 r--p 00f60000 fe:00 9979367                            /usr/lib/libc.so.6
Anonymous:            64 kB
c000000000-c000400000 rw-p 00000000 00:00 0                              [anon: Go: heap]
Anonymous:             0 kB
7ffc4a5c9000-7ffc4a5cb000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
`

func TestWhatIsAsInItsFile(t *testing.T) {
	want := []mapping{{0x400000, 0xb4d000}, {0xb4d000, 0x130b000}}
	if got := unchanged(strings.NewReader(smaps)); !slices.Equal(got, want) {
		t.Errorf("%x, not %x", got, want)
	}
}

var residentFile = regexp.MustCompile(`RssFile:\s+(\d+) kB`)

func resident(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	kB, err := strconv.Atoi(string(residentFile.FindSubmatch(status)[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kB
}

// What goes on uses a part of what was given back.
func TestPagesOfTheProgramAreGivenBack(t *testing.T) {
	before := resident(t)
	giveBackPages()
	if after := resident(t); after > before*3/4 {
		t.Errorf("%d of %d kB are left", after, before)
	}
}
