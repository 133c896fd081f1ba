package control

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Programs are written after docs/control.md: it has each path and each field.
func TestReference(t *testing.T) {
	text, err := os.ReadFile("../../docs/control.md")
	if err != nil {
		t.Fatal(err)
	}
	wanted := []string{"GET " + statusPath, "`" + string(Upgraded) + "`"}
	for path := range operations {
		wanted = append(wanted, "POST "+path)
	}
	for _, o := range []Outcome{Upgraded, Failed, Undone, Superseded, Refused, Stopped, Reexeced, Signalled} {
		wanted = append(wanted, "`"+string(o)+"`")
	}
	for _, message := range []any{Line{}, Status{}} {
		for _, field := range fields(reflect.TypeOf(message)) {
			wanted = append(wanted, "`"+field+"`")
		}
	}
	for _, w := range wanted {
		if !strings.Contains(string(text), w) {
			t.Errorf("docs/control.md does not describe %s", w)
		}
	}
}

func fields(message reflect.Type) []string {
	for message.Kind() == reflect.Pointer || message.Kind() == reflect.Slice {
		message = message.Elem()
	}
	if message.Kind() != reflect.Struct || message == reflect.TypeFor[time.Time]() {
		return nil
	}
	var names []string
	for f := range message.NumField() {
		name, _, _ := strings.Cut(message.Field(f).Tag.Get("json"), ",")
		names = append(names, name)
		names = append(names, fields(message.Field(f).Type)...)
	}
	return names
}
