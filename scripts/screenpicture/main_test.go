package main

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"
)

const screen = "plain \x1b[1mbold\x1b[0m\n" +
	"\x1b[2mfaint\x1b[0m   \x1b[31mred <&>  apart\x1b[39m \x1b[38;5;2mgreen\n" +
	"still\x1b[0m  ─▲\n\n\n"

func TestPictureHasEveryWordInItsPlace(t *testing.T) {
	rows, err := readRows(strings.NewReader(screen))
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 3 {
		t.Errorf("%d rows", len(rows))
	}
	svg := picture(rows)
	for _, want := range []string{
		`<text x="16" y="28" textLength="40" fill="#c9d1d9">plain</text>`,
		`<text x="64" y="28" textLength="32" fill="#c9d1d9" font-weight="bold">bold</text>`,
		`<text x="16" y="45" textLength="40" fill="#c9d1d9" opacity="0.6">faint</text>`,
		`<text x="80" y="45" textLength="56" fill="#f85149">red &lt;&amp;&gt;</text>`,
		`<text x="152" y="45" textLength="40" fill="#f85149">apart</text>`,
		`<text x="200" y="45" textLength="40" fill="#3fb950">green</text>`,
		`<text x="16" y="62" textLength="40" fill="#3fb950">still</text>`,
		`<text x="72" y="62" textLength="16" fill="#c9d1d9">─▲</text>`,
	} {
		if !strings.Contains(svg, want) {
			t.Errorf("%s is missing in\n%s", want, svg)
		}
	}
}

func TestPictureIsXML(t *testing.T) {
	rows, _ := readRows(strings.NewReader(screen))
	for d := xml.NewDecoder(strings.NewReader(picture(rows))); ; {
		_, err := d.Token()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
