package unitfile

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// settings are the lines of a unit that set something.
func settings(unit string) (all []string) {
	for line := range strings.Lines(unit) {
		if line = strings.TrimSpace(line); strings.Contains(line, "=") && !strings.HasPrefix(line, "#") {
			all = append(all, line)
		}
	}
	return all
}

// What the unit file of the documentation sets, and its tests have tried, is set here too.
func TestUnitIsThatOfTheDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/systemd/grace@.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := Service{Name: "shop", Grace: "/usr/local/bin/grace", Command: []string{"/srv/shop"}}.Text()
	got, others := settings(unit), 0
	for _, want := range settings(strings.ReplaceAll(string(text), "%i", "shop")) {
		switch name, _, _ := strings.Cut(want, "="); name {
		case "EnvironmentFile", "ExecStart":
			others++
		default:
			if !slices.Contains(got, want) {
				t.Errorf("the unit does not have %s:\n%s", want, unit)
			}
		}
	}
	if more := len(got) - len(settings(string(text))) + others; more != 1 { // ExecStart
		t.Errorf("the unit has %d settings more than the documentation's:\n%s", more-1, unit)
	}
}

func TestRights(t *testing.T) {
	for name, c := range map[string]struct {
		service Service
		has     []string
		hasNot  []string
	}{
		"a user of its own":  {Service{}, []string{"DynamicUser=yes", "ProtectHome=yes"}, []string{"\nUser=", "CAP_BPF", "\nReadWritePaths"}},
		"an existing user":   {Service{User: "shop", Home: true, Farewell: true}, []string{"\nUser=shop\n", "ProtectHome=read-only"}, []string{"DynamicUser", "CAP_BPF"}},
		"root":               {Service{User: Root}, []string{"CAP_SETUID CAP_SETGID"}, []string{"DynamicUser", "AmbientCapabilities", "CAP_BPF", " bpf"}},
		"root with farewell": {Service{User: Root, Farewell: true}, []string{"CAP_BPF CAP_NET_ADMIN", "pidfd_getfd bpf\n"}, []string{"DynamicUser"}},
		"paths": {Service{Name: "x", RuntimeDirs: []string{"a b"}, Writable: []string{"/srv/100%"}},
			[]string{"RuntimeDirectory=grace/x \"a b\"\n", "Environment=RUNTIME_DIRECTORY=/run/grace/x\n", "ReadWritePaths=/srv/100%%\n"}, nil},
	} {
		unit := c.service.Text()
		for _, want := range c.has {
			if !strings.Contains(unit, want) {
				t.Errorf("%s: no %q in\n%s", name, want, unit)
			}
		}
		for _, unwanted := range c.hasNot {
			if strings.Contains(unit, unwanted) {
				t.Errorf("%s: %q in\n%s", name, unwanted, unit)
			}
		}
	}
}

func TestWord(t *testing.T) {
	for text, want := range map[string]string{
		"":             `""`,
		"--listen":     "--listen",
		"100%":         "100%%",
		"$HOME ${X}":   `"$$HOME $${X}"`,
		`a"b\c`:        `"a\"b\\c"`,
		"it's":         `"it's"`,
		";":            `";"`,
		"line\nbreak":  `"line\x0abreak"`,
		"\xff":         `"\xff"`,
		"ends in \\":   `"ends in \\"`,
		"{fd:web}?a=b": "{fd:web}?a=b",
	} {
		if got := word(text); got != want {
			t.Errorf("%q is written %s, want %s", text, got, want)
		}
	}
}

// FuzzWord: systemd finds the words that were written. test/systemd asks systemd itself.
func FuzzWord(f *testing.F) {
	for _, text := range []string{"", " ", "$", "$$", "${A}", "%", "%%n", `\`, `\\"'`, ";", "#", "a\nb", "\t", "ü", "\xff\x00x", "'", `" "`} {
		f.Add(text, "next")
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		written := line([]string{first, second})
		got, ok := asSystemd(written)
		if want := []string{first, second}; !ok || !slices.Equal(got, want) {
			t.Errorf("%q is written %s, which systemd reads as %q", want, written, got)
		}
		if strings.ContainsAny(written, "\n\x00") {
			t.Errorf("%q does not fit on a line", written)
		}
	})
}

// asSystemd reads a command line as extract_first_word (src/basic/extract-word.c), unit_full_printf and replace_env_argv
// (src/basic/env-util.c) do, as far as word writes it.
func asSystemd(line string) (words []string, ok bool) {
	for line = strings.TrimLeft(line, " "); line != ""; line = strings.TrimLeft(line, " ") {
		if line[0] == ';' {
			return nil, false
		}
		text, rest, ok := cutWord(line)
		if !ok {
			return nil, false
		}
		line = rest
		text, ok = undouble(text, '%')
		if !ok {
			return nil, false
		}
		if text, ok = undouble(text, '$'); !ok {
			return nil, false
		}
		words = append(words, text)
	}
	return words, true
}

func cutWord(line string) (text, rest string, ok bool) {
	if line[0] != '"' {
		end := strings.IndexAny(line, ` "'\`)
		if end >= 0 && line[end] != ' ' {
			return "", "", false
		}
		text, rest, _ = strings.Cut(line, " ")
		return text, rest, true
	}
	var b strings.Builder
	for i := 1; i < len(line); i++ {
		switch line[i] {
		case '"':
			return b.String(), line[i+1:], true
		case '\\':
			i++
			if line[i] != 'x' {
				b.WriteByte(line[i])
				continue
			}
			n, err := strconv.ParseUint(line[i+1:i+3], 16, 8)
			if err != nil {
				return "", "", false
			}
			b.WriteByte(byte(n))
			i += 2
		default:
			b.WriteByte(line[i])
		}
	}
	return "", "", false
}

// undouble takes a sign that comes alone for one that systemd would replace.
func undouble(text string, sign byte) (string, bool) {
	double, hidden := string([]byte{sign, sign}), "\x00\x00hidden"
	hid := strings.ReplaceAll(text, double, hidden)
	return strings.ReplaceAll(hid, hidden, string(sign)), !strings.Contains(hid, string(sign))
}
