package systemd

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// writeUnit has grace unit write shop.service in the box, in the app's directory, as root.
func (b *box) writeUnit(flags string) {
	b.t.Helper()
	b.do("sh", "-c", "cd /srv/shop && /usr/local/bin/grace unit "+flags+" >/etc/systemd/system/shop.service")
	b.do("systemctl", "daemon-reload")
	if says := b.do("systemd-analyze", "verify", "--man=no", "shop.service"); says != "" {
		b.t.Errorf("systemd-analyze says: %s", says)
	}
}

func (b *box) shopSays(want string) {
	b.t.Helper()
	harness.Until(b.t, "the status is "+want, func() bool { return strings.HasPrefix(b.property("shop", "StatusText"), want) })
}

// The unit that grace unit prints is one that runs, held and captured, as a user of its own and by root for another user.
func TestPrintedUnit(t *testing.T) {
	for name, flags := range map[string]func(addr string) string{
		"held": func(addr string) string {
			return "--listen web=" + addr + " --on 'failed=echo \"100% of $GRACE_WHY\"' -- ./app"
		},
		"captured": func(addr string) string { return "--settle 50ms -- ./server -addr " + addr },
		"another user": func(addr string) string {
			return "--user nobody --listen web=" + addr + " --metrics unix:///run/other/metrics.sock -- ./app"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := freeport.Address(t)
			b := bootUnits(t, "", "", shopServer, nil)
			b.writeUnit(flags(addr))
			b.do("systemctl", "start", "shop")
			s := b.follow("shop")
			s.AwaitReady(1)
			b.do("systemd-analyze", "security", "--no-pager", "--threshold=40", "shop.service")
			harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
				for g := 2; g <= 3; g++ {
					b.do("systemctl", "reload", "shop")
					b.shopSays(fmt.Sprintf("generation %d serves", g))
				}
				b.do("systemctl", "kill", "--signal", "KILL", "--kill-whom", "main", "shop")
				s.AwaitTimes("app adopted", 1, func(e harness.Entry) bool { return e.Message == "app adopted" })
				harness.Until(t, "the unit is active again", func() bool { return b.property("shop", "ActiveState") == "active" })
				b.do("systemctl", "reload", "shop")
				b.shopSays("generation 4 serves")
			})
			if lines := b.do("/usr/local/bin/grace", "logs", "shop"); !strings.Contains(lines, `"message":"serving"`) || !strings.Contains(lines, "Started shop.service") {
				t.Errorf("grace logs shows\n%s", lines)
			}
			if name == "another user" {
				b.do("test", "-S", "/run/other/metrics.sock")
				b.do("test", "-S", "/run/grace/shop/shop.sock")
			}
			b.do("systemctl", "stop", "shop")
			if result := b.property("shop", "Result"); result != "success" {
				t.Errorf("the result is %s", result)
			}
		})
	}
}

// tellsWords writes how many words it got, and the words.
const tellsWords = "#!/bin/sh\n{ printf '%d\\0' $#; printf '%s\\0' \"$@\"; } >>/run/words\n"

// systemd reads the words of a printed unit as they were given, whatever is in them.
func TestPrintedUnitKeepsEveryWord(t *testing.T) {
	t.Parallel()
	b := bootUnits(t, "", "", tellsWords, nil)
	r := rand.New(rand.NewPCG(1, 2))
	var all []string
	unit := "[Service]\nType=oneshot\n"
	for range 40 {
		words := anyWords(r)
		grace := exec.Command(harness.GraceBinary(), append([]string{"unit", "--name", "x", "--", "/srv/shop/app"}, words...)...)
		grace.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
		out, err := grace.Output()
		if err != nil {
			t.Fatalf("%q: %v", words, err)
		}
		_, line, found := strings.Cut(string(out), "\n    -- ")
		if line, _, _ = strings.Cut(line, "\n"); !found {
			t.Fatalf("no command in\n%s", out)
		}
		unit += "ExecStart=" + line + "\n"
		all = append(append(all, strconv.Itoa(len(words))), words...)
	}
	harness.Write(t, b.path("root/etc/systemd/system"), "words.service", unit, 0o644)
	b.do("systemctl", "daemon-reload")
	b.do("systemctl", "start", "words")
	got := strings.Split(strings.TrimSuffix(harness.Read(t, b.path("root/run/words")), "\x00"), "\x00")
	for i := range min(len(got), len(all)) {
		if got[i] != all[i] {
			t.Fatalf("word %d is %q, want %q", i, got[i], all[i])
		}
	}
	if !slices.Equal(got, all) {
		t.Errorf("systemd gave %d words, want %d", len(got), len(all))
	}
}

// anyWords are hard ones, and random bytes but for NUL.
func anyWords(r *rand.Rand) []string {
	hard := []string{"", ";", `\;`, "$", "$$", "$HOME", "${HOME}", "$HOME/x", "%", "%%", "%n", `\`, `\\`, `"`, "'", `\x41`, `"a b"`, "a\nb", "#", "\t", "ü", "\xff", "-", "@", "end\\", "a;b", "{fd}"}
	var words []string
	for range 1 + r.IntN(6) {
		if r.IntN(2) == 0 {
			words = append(words, hard[r.IntN(len(hard))])
			continue
		}
		text := make([]byte, r.IntN(12))
		for i := range text {
			text[i] = byte(1 + r.IntN(255))
		}
		words = append(words, string(text))
	}
	return words
}
