package harness

import (
	"context"
	"testing"

	"github.com/gracerun/grace/supervisor/control"
)

// Client asks the grace process with a name.
func Client(t *testing.T, name string) (c *control.Client, socket string) {
	t.Helper()
	found, err := control.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	c = control.NewClient(found.Path)
	t.Cleanup(c.Close)
	return c, found.Path
}

// Ask sends a request to grace, and returns the result and what was reported before it.
func Ask(t *testing.T, c *control.Client, r control.Request) (result control.Result, told []control.Report) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	answer, err := c.Ask(ctx, r)
	if err != nil {
		t.Fatalf("%s: %v", r.Do, err)
	}
	defer answer.Close()
	result, err = answer.Wait(func(r control.Report) { told = append(told, r) })
	if err != nil {
		t.Fatalf("%s: %v", r.Do, err)
	}
	return result, told
}

// Status is what grace answers about itself.
func Status(t *testing.T, c *control.Client) control.Status {
	t.Helper()
	s, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}
