//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/test/harness"
)

// jobLoad is clients that ask for a job, and for the next one about when it is done.
type jobLoad struct {
	*crowd
	folder  string
	clients []*jobClient
}

const askers = workers

func startJobs(t *testing.T, addr, folder string) *jobLoad {
	t.Helper()
	l := &jobLoad{crowd: newCrowd(t, "jobs", 10*time.Millisecond), folder: folder}
	for range askers {
		c := &jobClient{url: "http://" + addr + "/jobs", stop: l.stop}
		c.http.Transport = &http.Transport{DisableKeepAlives: true}
		l.clients = append(l.clients, c)
		l.add(c)
	}
	return l
}

// finish returns when no job is left.
func (l *jobLoad) finish(t *testing.T) {
	t.Helper()
	l.end(t)
	harness.Until(t, "every job is done", func() bool {
		left, err := filepath.Glob(filepath.Join(l.folder, "*[0-9].*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(left) == 0
	})
}

// check wants each job to have been done by the process that has taken it. No line of the journal comes twice.
func (l *jobLoad) check(t *testing.T, j *entries) {
	t.Helper()
	all, spanned := 0, 0
	for _, c := range l.clients {
		for _, name := range c.posted {
			all++
			if j.spans(t, name) {
				spanned++
			}
		}
	}
	t.Logf("%d jobs, %d of them held when a successor began", all, spanned)
	if spanned == 0 {
		t.Error("no job was held during an upgrade")
	}
}

// spans tells whether another process has begun while the job was done.
func (j *entries) spans(t *testing.T, name string) bool {
	t.Helper()
	taken, pid, ok := j.find(fmt.Sprintf("job %s taken by ", name))
	done, doer, _ := j.find(fmt.Sprintf("job %s done by ", name))
	if !ok || done < taken || doer != pid {
		t.Errorf("job %s: taken by %q in line %d, done by %q in line %d", name, pid, taken, doer, done)
		return false
	}
	for _, line := range j.lines[taken:done] {
		if strings.HasPrefix(line, "process ") {
			return true
		}
	}
	return false
}

type jobClient struct {
	http   http.Client
	url    string
	stop   <-chan struct{}
	posted []string
}

// exchange has new connections, as the Transport repeats requests on old ones.
func (c *jobClient) exchange(context.Context) error {
	took := rand.N(1500 * time.Millisecond)
	response, err := c.http.Post(c.url, "text/plain", strings.NewReader(took.String()))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	name, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", response.Status, name)
	}
	c.posted = append(c.posted, string(name))
	select {
	case <-time.After(took):
	case <-c.stop:
	}
	return nil
}

func (c *jobClient) close() {}
