// Package kubernetes applies the manifests of docs/containers to a cluster, and replaces what runs there under load. scripts/test-kubernetes
// runs it.
package kubernetes

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
)

const (
	manifests = "../../docs/containers/kubernetes"
	replicas  = 3 // as in deployment.yaml
)

// TestManifests goes through the life of one Deployment: each part begins with what the last one has left.
func TestManifests(t *testing.T) {
	c := startCluster(t)
	for _, command := range [][]string{c.command([]string{"version"}), {"etcd", "--version"}, {"containerd", "--version"}, {"runc", "--version"}} {
		t.Logf("%s", do(t, command...))
	}
	w := c.watch(t)
	c.kubectl(t, "apply", "--filename", manifests)
	c.awaitRollout(t)
	w.awaitOnly(t, replicas)
	t.Run("a new image", func(t *testing.T) {
		c.rollOut(t, w, "set", "image", "deployment/app", "app="+nextImage)
	})
	t.Run("a new variable", func(t *testing.T) {
		c.rollOut(t, w, "set", "env", "deployment/app", "COLOR=green")
	})
	t.Run("upgrades in the pods", func(t *testing.T) { c.upgrade(t, w) })
	t.Run("a broken image", func(t *testing.T) { c.breakAndUndo(t, w) })
	t.Run("a node is drained", func(t *testing.T) { c.drain(t, w) })
	t.Run("a server that knows nothing of grace", func(t *testing.T) { c.farewell(t, w) })
	t.Run("the app without grace", func(t *testing.T) { c.withoutGrace(t, w) })
}

func (c *cluster) awaitRollout(t *testing.T) {
	t.Helper()
	c.kubectl(t, "rollout", "status", "deployment/app", "--timeout", patience.String())
}

// replace changes the Deployment and waits until the old pods have ended.
func (c *cluster) replace(t *testing.T, w *watch, change ...string) {
	t.Helper()
	c.kubectl(t, change...)
	c.awaitRollout(t)
	w.awaitOnly(t, replicas)
}

// rollOut replaces all pods. With maxUnavailable: 0 none may be missing.
func (c *cluster) rollOut(t *testing.T, w *watch, change ...string) {
	t.Helper()
	w.reset()
	c.underLoad(t, func() { c.replace(t, w, change...) })
	w.check(t, replicas, replicas)
}

const upgradesOfPod = 10

// upgrade replaces the app in each pod again and again.
func (c *cluster) upgrade(t *testing.T, w *watch, more ...string) {
	t.Helper()
	w.reset()
	r := c.underLoad(t, func() {
		for range upgradesOfPod {
			for _, name := range w.names() {
				c.kubectl(t, "exec", name, "--", "/grace", "upgrade")
			}
		}
	}, more...)
	w.check(t, replicas, 0)
	t.Logf("%d upgrades of each pod; answers of each generation: %v", upgradesOfPod, r.Generations)
	for generation := 1; generation <= upgradesOfPod; generation++ { // the last one may have had no time
		if r.Generations[generation] == 0 {
			t.Errorf("generation %d has not answered", generation)
		}
	}
}

// breakAndUndo rolls out an app that never serves, and goes back.
func (c *cluster) breakAndUndo(t *testing.T, w *watch) {
	w.reset()
	c.underLoad(t, func() {
		c.kubectl(t, "set", "image", "deployment/app", "app="+brokenImage)
		out, err := c.try(t, "rollout", "status", "deployment/app")
		t.Logf("%s", out)
		if err == nil || !strings.Contains(out, "exceeded its progress deadline") {
			t.Errorf("the rollout did not fail: %v", err)
		}
		c.replace(t, w, "rollout", "undo", "deployment/app")
	})
	if fewest := w.fewestReady(); fewest < replicas {
		t.Errorf("%d pods were ready", fewest)
	}
}

// drain has all pods leave a node that has two or three of them. The budget lets them go one at a time.
func (c *cluster) drain(t *testing.T, w *watch) {
	node, pods := w.nodeOfMost()
	if pods < 2 {
		t.Fatalf("node %s has %d pods", node, pods)
	}
	least, err := strconv.Atoi(c.kubectl(t, "get", "poddisruptionbudget", "app", "--output", "jsonpath={.status.desiredHealthy}"))
	if err != nil {
		t.Fatal(err)
	}
	w.reset()
	c.underLoad(t, func() {
		out := c.kubectl(t, "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout", patience.String())
		t.Logf("%d pods of node %s: %s", pods, node, out)
		if !strings.Contains(out, "would violate the pod's disruption budget") {
			t.Error("no eviction had to wait for the budget")
		}
		w.awaitOnly(t, replicas)
	})
	w.check(t, least, pods)
	if now, moved := w.nodeOfMost(); now == node || moved != replicas {
		t.Errorf("node %s has %d pods", now, moved)
	}
	c.kubectl(t, "uncordon", node)
}

// noStreams is for a server that does not end them when it is told to stop.
const noStreams = "--streams=0"

// farewell has the kernel ask the clients of a server to leave that only shuts down at TERM, with the rights that docs/farewell.md names.
func (c *cluster) farewell(t *testing.T, w *watch) {
	c.replace(t, w, "patch", "deployment", "app", "--patch", `{"spec": {"template": {"spec": {
		"securityContext": {"runAsNonRoot": false},
		"containers": [{
			"name": "app",
			"args": ["--listen=:8080", "--metrics=:9090", "--drain-delay=10s", "--drain-timeout=40s", "--", "/plain", "fd:3"],
			"securityContext": {"runAsUser": 0, "capabilities": {"add": ["BPF", "NET_ADMIN", "SYS_PTRACE"]}}
		}]
	}}}}`)
	c.checkRights(t)
	t.Run("upgrades in the pods", func(t *testing.T) { c.upgrade(t, w, noStreams) })
	t.Run("a rollout", func(t *testing.T) {
		w.reset()
		c.underLoad(t, func() { c.replace(t, w, "rollout", "restart", "deployment/app") }, noStreams)
		w.check(t, replicas, replicas)
	})
}

// checkRights has grace doctor say whether grace may ask clients to leave.
func (c *cluster) checkRights(t *testing.T) {
	t.Helper()
	out := c.kubectl(t, "exec", "deployment/app", "--", "/grace", "doctor", "--json", "--drain-delay", "10s", "--drain-timeout", "40s")
	var report struct {
		Findings []struct{ Mechanism, State, Means, Do string }
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, f := range report.Findings {
		if f.Mechanism == "farewell" && f.State == "ok" {
			return
		}
	}
	t.Errorf("clients are not asked to leave: %+v", report.Findings)
}

// withoutGrace shows that the clients see what goes wrong: the same app, which ends well at TERM, is the pod's first process.
func (c *cluster) withoutGrace(t *testing.T, w *watch) {
	c.replace(t, w, "patch", "deployment", "app", "--patch", `{"spec": {"template": {"spec": {"containers": [{
		"name": "app", "command": ["/app"], "args": null, "securityContext": null, "livenessProbe": null,
		"readinessProbe": {"httpGet": {"path": "/", "port": "http"}}
	}]}}}}`)
	if r := c.measure(t, func() { c.replace(t, w, "rollout", "restart", "deployment/app") }); r.Failed == 0 {
		t.Error("no request failed, so this test cannot see a failure")
	}
}
