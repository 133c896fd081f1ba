package containers

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// manifest reads one object of the folder kubernetes. A field that its type does not have is an error.
func manifest[T any](t *testing.T, name string) T {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("kubernetes", name))
	if err != nil {
		t.Fatal(err)
	}
	var object T
	if err := yaml.UnmarshalStrict(text, &object); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return object
}

func deployment(t *testing.T) apps.Deployment {
	t.Helper()
	return manifest[apps.Deployment](t, "deployment.yaml")
}

func TestManifestsAreOfTheirKinds(t *testing.T) {
	d, s, b := deployment(t), manifest[core.Service](t, "service.yaml"), manifest[policy.PodDisruptionBudget](t, "poddisruptionbudget.yaml")
	for _, c := range []struct{ got, want string }{
		{d.APIVersion + " " + d.Kind, "apps/v1 Deployment"},
		{s.APIVersion + " " + s.Kind, "v1 Service"},
		{b.APIVersion + " " + b.Kind, "policy/v1 PodDisruptionBudget"},
	} {
		if c.got != c.want {
			t.Errorf("%s, want %s", c.got, c.want)
		}
	}
	files, err := filepath.Glob("kubernetes/*")
	if err != nil || len(files) != 3 {
		t.Errorf("files that no test reads: %v, %v", files, err)
	}
}

func TestManifestsFindEachOther(t *testing.T) {
	d, s, b := deployment(t), manifest[core.Service](t, "service.yaml"), manifest[policy.PodDisruptionBudget](t, "poddisruptionbudget.yaml")
	for who, selector := range map[string]map[string]string{
		"deployment": d.Spec.Selector.MatchLabels, "service": s.Spec.Selector, "budget": b.Spec.Selector.MatchLabels,
	} {
		if len(selector) == 0 {
			t.Errorf("the %s selects all", who)
		}
		for label, value := range selector {
			if d.Spec.Template.Labels[label] != value {
				t.Errorf("the %s selects %s=%s, which the pods do not have", who, label, value)
			}
		}
	}
	ports := map[intstr.IntOrString]int32{}
	for _, p := range app(t).Ports {
		ports[intstr.FromString(p.Name)] = p.ContainerPort
	}
	c := app(t)
	for what, port := range map[string]intstr.IntOrString{
		"--listen": s.Spec.Ports[0].TargetPort, "--metrics": c.ReadinessProbe.HTTPGet.Port,
	} {
		if number := intstr.FromInt32(ports[port]); argument(t, what) != ":"+number.String() {
			t.Errorf("%s is %s, and port %s is %s", what, argument(t, what), &port, &number)
		}
	}
	if c.LivenessProbe.HTTPGet.Port != c.ReadinessProbe.HTTPGet.Port || d.Spec.Template.Annotations["prometheus.io/port"] != argument(t, "--metrics")[1:] {
		t.Error("not all who ask for metrics and health ask at the port of --metrics")
	}
	if c.ReadinessProbe.HTTPGet.Path != "/readyz" || c.LivenessProbe.HTTPGet.Path != "/healthz" {
		t.Error("a probe asks something else")
	}
}

func app(t *testing.T) core.Container {
	t.Helper()
	containers := deployment(t).Spec.Template.Spec.Containers
	if len(containers) != 1 {
		t.Fatalf("%d containers", len(containers))
	}
	return containers[0]
}

// argument gives the value of one of grace's flags.
func argument(t *testing.T, flag string) string {
	t.Helper()
	for _, word := range app(t).Args {
		if value, found := strings.CutPrefix(word, flag+"="); found {
			return value
		}
	}
	t.Fatalf("no %s", flag)
	return ""
}

func duration(t *testing.T, flag string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(argument(t, flag))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A pod that is told to stop serves on until all have heard of it, drains, and is gone before it would be killed.
func TestDrainTimesFitTogether(t *testing.T) {
	d, c := deployment(t), app(t)
	delay, drain := duration(t, "--drain-delay"), duration(t, "--drain-timeout")
	killed := time.Duration(*d.Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second
	if killed <= delay+drain {
		t.Errorf("killed after %s, drained after %s and %s", killed, delay, drain)
	}
	if seen := time.Duration(c.ReadinessProbe.PeriodSeconds*c.ReadinessProbe.FailureThreshold) * time.Second; seen >= delay {
		t.Errorf("probes see after %s that the pod is to get no clients, and it serves on for %s", seen, delay)
	}
	if c.Lifecycle != nil {
		t.Error("a hook takes its time from the drain")
	}
	if progress := time.Duration(*d.Spec.ProgressDeadlineSeconds) * time.Second; progress < 2*killed {
		t.Errorf("a rollout has failed after %s, and a pod takes %s to end", progress, killed)
	}
}

func TestNoPodIsMissed(t *testing.T) {
	update := deployment(t).Spec.Strategy.RollingUpdate
	if *update.MaxUnavailable != intstr.FromInt32(0) {
		t.Error("a rollout takes a pod away before there is another one")
	}
	budget := manifest[policy.PodDisruptionBudget](t, "poddisruptionbudget.yaml").Spec.MaxUnavailable
	if budget.IntVal < 1 || budget.IntVal >= *deployment(t).Spec.Replicas {
		t.Errorf("the budget lets %s pods go", budget)
	}
}

func TestPodHasNoRights(t *testing.T) {
	pod, c := deployment(t).Spec.Template.Spec, app(t).SecurityContext
	if !*pod.SecurityContext.RunAsNonRoot || pod.SecurityContext.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
		t.Error("the pod may be root, or call what it likes")
	}
	if *c.AllowPrivilegeEscalation || !*c.ReadOnlyRootFilesystem || len(c.Capabilities.Drop) != 1 || c.Capabilities.Drop[0] != "ALL" {
		t.Error("the container has more than it needs")
	}
}

// The arguments are flags that grace has, then the app.
func TestArgumentsAreFlags(t *testing.T) {
	reference, err := os.ReadFile("../cli/grace_run.md")
	if err != nil {
		t.Fatal(err)
	}
	flag := regexp.MustCompile(`^--[a-z-]+`)
	for i, word := range app(t).Args {
		if word == "--" {
			if i != len(app(t).Args)-2 {
				t.Errorf("the command is %q", app(t).Args[i+1:])
			}
			return
		}
		if name := flag.FindString(word); name == "" || !strings.Contains(string(reference), "\n| `"+name+" ") {
			t.Errorf("%s is no flag of grace run", word)
		}
	}
	t.Error("no command")
}
