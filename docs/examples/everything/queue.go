package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// queue is a folder with a file for each job, which all generations share. A worker takes a job by renaming its file, and
// removes the file when the job is done. A renamed file that stays was left by a process that was killed.
type queue struct {
	folder  string
	journal *journal
}

// job has a name and a duration: the work is to wait that long.
type job struct {
	name string
	file string
	took time.Duration
}

const (
	writing = ".new"
	waiting = ".job"
	taken   = ".taken"
)

// post puts a job into the queue, and then answers with its name.
func (q *queue) post(w http.ResponseWriter, r *http.Request) {
	body, ok := read(w, r)
	if !ok {
		return
	}
	if _, err := time.ParseDuration(string(body)); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	name, err := q.put(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprint(w, name)
}

func (q *queue) put(what []byte) (name string, err error) {
	f, err := os.CreateTemp(q.folder, "*"+writing)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err := f.Write(what); err != nil {
		return "", err
	}
	whole := strings.TrimSuffix(f.Name(), writing)
	return filepath.Base(whole), os.Rename(f.Name(), whole+waiting)
}

// receive waits for a job until ctx is cancelled, when the drain begins.
func (q *queue) receive(ctx context.Context) (job, error) {
	soon := time.NewTicker(often)
	defer soon.Stop()
	for {
		if j, ok, err := q.take(); ok || err != nil {
			return j, err
		}
		select {
		case <-soon.C:
		case <-ctx.Done():
			return job{}, ctx.Err()
		}
	}
}

// take tries one file after the other, because another worker may take each of them first.
func (q *queue) take() (job, bool, error) {
	files, err := filepath.Glob(filepath.Join(q.folder, "*"+waiting))
	if err != nil {
		return job{}, false, err
	}
	for _, file := range files {
		whole := strings.TrimSuffix(file, waiting)
		if os.Rename(file, whole+taken) == nil {
			j, err := open(whole + taken)
			return j, true, err
		}
	}
	return job{}, false, nil
}

func open(file string) (job, error) {
	what, err := os.ReadFile(file)
	if err != nil {
		return job{}, err
	}
	took, err := time.ParseDuration(string(what))
	return job{strings.TrimSuffix(filepath.Base(file), taken), file, took}, err
}

// work is cancelled only when the drain's time is over.
func (q *queue) work(ctx context.Context, j job) error {
	if err := q.journal.add(fmt.Sprintf("job %s taken by %d", j.name, os.Getpid())); err != nil {
		return err
	}
	select {
	case <-time.After(j.took):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := q.journal.add(fmt.Sprintf("job %s done by %d", j.name, os.Getpid())); err != nil {
		return err
	}
	return os.Remove(j.file)
}
