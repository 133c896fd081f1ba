package fold

import "testing"

func TestLine(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"äöü", "äöü\n"},
		{"one two", "one\n  two\n"},
		{"/a/long/path", "/a/lo\n  ng/\n  pat\n  h\n"},
	} {
		if got := Line(c.line, 5, 4); got != c.want {
			t.Errorf("%q became %q", c.line, got)
		}
	}
}
