package supervisor

import (
	"fmt"

	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
	"github.com/rs/zerolog"
)

// line is a report with its text, as people and programs get it.
type line struct {
	machine.Report
	level zerolog.Level
	event event
	text  string
	why   string
}

// worded gives a report of the machine its text.
func worded(r machine.Report) line {
	w := wordings[r.Fact]
	return line{Report: r, level: w.level, event: w.event, text: textOf(r), why: reasonText(r.Why)}
}

// event is the name of a fact for programs: hooks, metrics, the service manager and clients of the control socket.
type event string

const (
	eventServing    event = "serving"    // the first generation is ready
	eventUpgrading  event = "upgrading"  // an upgrade has begun
	eventUpgraded   event = "upgraded"   // the new generation serves, and the upgrade will not be undone
	eventFailed     event = "failed"     // the new generation, or the first one, does not serve
	eventUndone     event = "undone"     // the new generation failed after it had served, and the old one serves again
	eventRefused    event = "refused"    // an upgrade was not begun
	eventSuperseded event = "superseded" // a later request has replaced an upgrade
	eventCrashed    event = "crashed"    // an instance that served has ended by itself
	eventRestarting event = "restarting" // another instance takes its place
	eventKilled     event = "killed"     // an instance did not end in time
	eventDraining   event = "draining"   // a generation finishes its connections
	eventDrained    event = "drained"    // a generation that served has ended
	eventSharing    event = "sharing"    // a new generation gets a share of the new connections
	eventScaled     event = "scaled"     // there are as many instances as was asked for
	eventReplaced   event = "replaced"   // a fresh instance has taken the place of another one
	eventStopping   event = "stopping"   // grace was told to stop, or the app has ended
)

// EventNames lists the events that --on accepts.
func EventNames() []string {
	var names []string
	for _, e := range []event{
		eventServing, eventUpgrading, eventUpgraded, eventFailed, eventUndone, eventRefused, eventSuperseded,
		eventCrashed, eventRestarting, eventKilled, eventDraining, eventDrained, eventSharing, eventScaled, eventReplaced, eventStopping,
	} {
		names = append(names, string(e))
	}
	return names
}

const (
	debug = zerolog.DebugLevel
	info  = zerolog.InfoLevel
	warn  = zerolog.WarnLevel
	fault = zerolog.ErrorLevel
)

// wordings has the level, the event (if any) and the text of each fact.
var wordings = map[machine.Fact]struct {
	level zerolog.Level
	event event
	text  string
}{
	machine.InstanceStarted:        {info, "", "instance started"},
	machine.InstanceReady:          {info, "", "instance ready"},
	machine.InstanceNotReady:       {info, "", "not ready yet"},
	machine.InstanceEnded:          {info, "", "instance ended"},
	machine.InstanceFailed:         {warn, "", "instance ended"},
	machine.InstanceCrashed:        {warn, eventCrashed, "instance ended"},
	machine.InstanceWithdrawn:      {warn, "", "instance is stopping by itself"},
	machine.InstanceRestarting:     {warn, eventRestarting, "restarting"},
	machine.RestartNotReady:        {warn, "", "restarted instance is not ready"},
	machine.DrainTimedOut:          {warn, eventKilled, "drain timed out, killing the instance"},
	machine.KillTimedOut:           {fault, "", "instance still running after SIGKILL"},
	machine.WatchdogTimedOut:       {fault, "", "watchdog: no WATCHDOG=1 in time, killing the instance"},
	machine.WatchdogLate:           {warn, "", "watchdog: the check ran late, waiting once more"},
	machine.MainProcessMoved:       {info, "", "another process is the main process now"},
	machine.LeftoversTold:          {info, "", "stopping processes that the instance left behind"},
	machine.ReadinessUnseen:        {warn, "", "cannot detect readiness: the instance counts as ready after --ready-delay"},
	machine.AppDescribed:           {debug, "", "app status"},
	machine.FirstReady:             {info, eventServing, "generation ready"},
	machine.FirstFailed:            {fault, eventFailed, "first generation failed"},
	machine.GenerationReady:        {info, "", "generation ready"},
	machine.GenerationSharing:      {info, eventSharing, "generation gets a share of the new connections"},
	machine.GenerationReplaced:     {info, "", "generation replaced"},
	machine.GenerationWarm:         {info, "", "generation kept warm: grace rollback goes back to it at once"},
	machine.InstancesEmptying:      {info, "", "instances draining"},
	machine.InstancesDraining:      {info, "", "instances draining"},
	machine.InstancesToldToStop:    {info, "", "instances told to stop"},
	machine.InstancesDrained:       {info, "", "instances ended"},
	machine.InstancesKilled:        {warn, eventKilled, "instances ended"},
	machine.ServingPaused:          {info, "", "no instance serves: clients wait for the next one"},
	machine.ServingResumed:         {info, "", "instances serve again"},
	machine.ScalingBegun:           {info, "", "scaling to %s"},
	machine.Scaled:                 {info, eventScaled, "scaled to %s"},
	machine.ScalingFailed:          {fault, "", "scaling failed, the instances that served still serve"},
	machine.ScalingWaiting:         {info, "", "scaling waits"},
	machine.ScalingRefused:         {warn, "", "scaling refused"},
	machine.InstanceUnfit:          {warn, "", "replacing an instance"},
	machine.InstanceReplaced:       {info, eventReplaced, "instance replaced"},
	machine.ReplacementFailed:      {fault, "", "cannot replace the instance, it still serves"},
	machine.PromotionRefused:       {warn, "", "promotion refused"},
	machine.SteeringFailed:         {fault, "", "cannot send new connections to the generation"},
	machine.ClientsAsked:           {info, "", "asked %s to close kept-alive connections"},
	machine.KeptConnectionsEnded:   {info, "", "kept-alive connections have ended"},
	machine.GenerationEmptying:     {info, eventDraining, "generation draining"},
	machine.GenerationDraining:     {info, eventDraining, "generation draining"},
	machine.GenerationToldToStop:   {info, eventDraining, "generation told to stop"},
	machine.DrainProgress:          {info, "", "draining (%s)"},
	machine.EmptyTimedOut:          {warn, "", "gave up waiting for idle connections"},
	machine.GenerationDrained:      {info, eventDrained, "generation ended"},
	machine.GenerationKilled:       {warn, eventDrained, "generation ended"},
	machine.FailedGenerationEnded:  {info, "", "generation ended"},
	machine.FailedGenerationKilled: {warn, "", "generation ended"},
	machine.UpgradeBegun:           {info, eventUpgrading, "upgrade begins"},
	machine.UpgradeDone:            {info, eventUpgraded, "upgraded"},
	machine.UpgradeFailed:          {fault, eventFailed, "upgrade failed"},
	machine.RolledBack:             {info, eventUndone, "rolled back"},
	machine.UpgradeUndone:          {fault, eventUndone, "upgrade undone"},
	machine.UpgradeWaiting:         {info, "", "upgrade waits"},
	machine.UpgradeRefused:         {warn, eventRefused, "upgrade refused"},
	machine.UpgradeSuperseded:      {info, eventSuperseded, "upgrade superseded"},
	machine.UpgradeForListener:     {warn, "", "upgrading"},
	machine.Stopping:               {info, eventStopping, "stopping"},
	machine.StoppingAtOnce:         {warn, eventStopping, "stopping at once"},
	machine.StopRepeated:           {warn, "", "stopping at once"},
	machine.ServingBeforeDrain:     {info, "", "still serving until --drain-delay is over"},
	machine.AppEnded:               {info, eventStopping, "the app has ended"},
	machine.RestartsExhausted:      {fault, eventStopping, "the app was restarted too often, stopping"},
	machine.ListenerRevived:        {warn, "", "listener %s revived"},
	machine.ListenerDead:           {fault, "", "cannot revive listener %s"},
	machine.ListenerShutDown:       {warn, "", "the app has shut down its listener"},
	machine.CaptureMissing:         {warn, "", "cannot capture the sockets that the app binds itself"},
	machine.CaptureFailed:          {fault, "", "cannot capture the app's sockets, so there can be no upgrade"},
	machine.ReexecWaiting:          {info, "", "reexec waits"},
	machine.ReexecRefused:          {warn, "", "reexec refused"},
	machine.ReexecUnsuccessful:     {fault, "", "reexec failed, this grace process continues"},
	machine.ReexecDone:             {info, "", "another grace process takes over"},
	machine.TakenOver:              {info, "", "taken over"},
	machine.Adopted:                {warn, "", "app adopted"},
	machine.AppReleased:            {warn, eventStopping, "the app continues to run without grace"},
	machine.ReleaseRefused:         {warn, "", "release refused"},
	machine.ServerFound:            {info, "", "taking over from a running process"},
	machine.ServerLeft:             {warn, "", "the processes that were to be replaced continue to serve without grace"},
	machine.ChangeNoticed:          {info, "", "files changed"},
	machine.TroubleNoticed:         {warn, "", "%s"},
}

func textOf(r machine.Report) string {
	text := wordings[r.Fact].text
	switch r.Fact {
	case machine.DrainProgress:
		return fmt.Sprintf(text, inFlight(r.Connections, r.Requests))
	case machine.ClientsAsked:
		return fmt.Sprintf(text, clients(r.Connections))
	case machine.ListenerRevived, machine.ListenerDead:
		return fmt.Sprintf(text, r.Listener)
	case machine.TroubleNoticed:
		return fmt.Sprintf(text, r.Said)
	case machine.ScalingBegun, machine.Scaled:
		return fmt.Sprintf(text, counted(r.Instances, "instance"))
	case machine.GenerationSharing:
		return fmt.Sprintf("generation gets %s of the new connections", r.Share)
	case machine.UpgradeFailed:
		if r.Serving != 0 {
			return fmt.Sprintf("%s, generation %d still serves", text, shown(r.Serving))
		}
	case machine.UpgradeUndone, machine.RolledBack:
		return fmt.Sprintf("%s, generation %d serves again", text, shown(r.Serving))
	}
	return text
}

// shown is the number of a generation as people read it.
func shown(generation int) int { return max(generation, 0) }

func clients(n *int) string {
	if n == nil {
		return "clients"
	}
	return counted(*n, "client")
}

func inFlight(connections, requests *int) string {
	switch {
	case connections == nil && requests == nil:
		return "connections in flight cannot be counted"
	case connections == nil:
		return counted(*requests, "request") + " in flight"
	case requests == nil:
		return counted(*connections, "connection") + " in flight"
	}
	return counted(*connections, "connection") + ", " + counted(*requests, "request") + " in flight"
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

var causeTexts = map[machine.Cause]string{
	machine.GraceStopping:      "grace is stopping",
	machine.AskedTwice:         "told to stop a second time",
	machine.NoPrevious:         "no earlier generation has served that grace could roll back to",
	machine.NoCapture:          "the app's sockets cannot be captured (" + capturesRemedy + ")",
	machine.NoSockets:          "grace neither holds nor captures the app's sockets, so a second generation could not bind them (give --listen, or remove --capture off)",
	machine.LaterRequest:       "a later request asks for something else",
	machine.OtherUpgrade:       "another upgrade is in progress",
	machine.BelongsToManager:   "the service manager, or the container, ends the app together with grace (start grace outside of them to release the app, or set --release-status and the unit accordingly)",
	machine.NotCalm:            "an upgrade or a start is in progress",
	machine.ConnectionsKept:    "grace keeps connections of an earlier generation open, until --keep is over or their last requests are answered",
	machine.SentStopping:       "the app sent STOPPING=1",
	machine.SuccessorMayFail:   "the generation serves again if its successor fails within --settle",
	machine.GenerationReturned: "the generation serves again",
	machine.OthersReturn:       "the old instances that had ended start again",
	machine.NothingLeft:        "no instance of the generation was left when grace was started again",
	machine.InstanceGone:       "the instance that had the place has ended",
	machine.NothingShares:      "no generation gets only a share of the new connections",
	machine.AskedBack:          "a rollback was requested",
	machine.NeedsOwnSockets:    "a share of the new connections needs sockets of each generation's own (write ?steer=true behind the address of --listen, or leave --listen out so that grace captures the app's sockets)",
	machine.OneInstanceOnly:    "a unix path that is steered or captured allows one instance: a path leads to one process",
	machine.ConnectionsWait:    "connections that arrived before the generation was replaced are waiting",
	machine.StopsWhenIdle:      "the stop signal comes once the connections are idle, at the latest after three quarters of --drain-timeout",
	machine.StopsWhenAccepted:  "the stop signal comes once the connections in the queues of its own sockets are accepted",
	machine.StartsWhenAwaited:  "no instance of the generation is ready: one is restarted only if connections wait at its addresses",
	machine.SocketIsNew:        "the listener is a new socket, which only a new generation gets",
	machine.SocketsUnused:      "grace has not seen the app use the --listen sockets (leave --listen out if the app binds its own sockets, choose a --dialect that it knows, or start it without a wrapper that closes descriptors, such as sudo or npm)",
	machine.WentToBackground:   "if the app continues in the background, configure it to stay in the foreground or to send MAINPID= to NOTIFY_SOCKET",
	machine.NoAnswer:           "the kernel has not answered in time",
	machine.HasDrained:         "drained",
	machine.HasFailed:          "failed",
	machine.NothingRuns:        "no process of the app is running that serves or starts (see grace status)",
}

const capturesRemedy = "run grace doctor to see which right is missing, or have grace hold the sockets with --listen"

// reasonText is empty for nil.
func reasonText(why machine.Reason) string {
	switch why := why.(type) {
	case machine.Said:
		return string(why)
	case machine.Cause:
		return causeTexts[why]
	case machine.Both:
		return reasonText(why.First) + "; " + reasonText(why.Second)
	case machine.Exit, machine.InstanceExited, machine.NotReadyInTime, machine.LeftBehind, machine.RequestsInFlight, machine.EndedOtherwise:
		return instanceReason(why)
	case machine.InFlightWhenCounted, machine.StoppedInFlight, machine.KilledInFlight, machine.StopsWhenIdleOr, machine.NotSteered, machine.TooManyDrain, machine.RunsTheSame, machine.RestartPolicy, machine.CheckFailed, machine.InstancesBeyond, machine.OlderThan, machine.TooManyRestarts:
		return generationReason(why)
	case machine.ConnectionEnds:
		return connectionEnds(why)
	case machine.ShutDownBy, machine.NothingListens, machine.CaptureRefused:
		return socketReason(why)
	}
	return ""
}

func connectionEnds(e machine.ConnectionEnds) string {
	text := fmt.Sprintf("closed by their clients: %d", e.Left)
	for _, end := range []struct {
		how   string
		count int
	}{
		{"last request answered by the new generation", e.Relayed},
		{"closed by grace without a last request", e.Expired},
		{"cut by the app", e.Cut},
	} {
		if end.count > 0 {
			text += fmt.Sprintf("; %s: %d", end.how, end.count)
		}
	}
	return text
}

func instanceReason(why machine.Reason) string {
	switch why := why.(type) {
	case machine.Exit:
		return exitText(why)
	case machine.InstanceExited:
		return "instance ended: " + exitText(why.Exit)
	case machine.NotReadyInTime:
		text := fmt.Sprintf("instance %d (pid %d) was not ready within %s", why.Instance, why.PID, why.After)
		if why.More != nil {
			text += ": " + reasonText(why.More)
		}
		return text
	case machine.LeftBehind:
		return host.ListRest(why.Rest)
	case machine.EndedOtherwise:
		return fmt.Sprintf("instance %d ended: %s", why.Instance, exitText(why.Exit))
	case machine.RequestsInFlight:
		return counted(why.Requests, "request") + " in flight in the app's last report"
	}
	return ""
}

func exitText(e machine.Exit) string {
	switch {
	case e.NotRun != "":
		return e.NotRun
	case e.Unknown:
		return "exit status unknown"
	case e.Signal != 0:
		return "signal: " + e.Signal.String()
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

func generationReason(why machine.Reason) string {
	switch why := why.(type) {
	case machine.InFlightWhenCounted:
		return counted(why.Connections, "connection") + " in flight when last counted"
	case machine.StoppedInFlight:
		return "stopped, with " + counted(why.Connections, "connection") + " in flight when last counted"
	case machine.KilledInFlight:
		return "killed, with " + counted(why.Connections, "connection") + " in flight when last counted"
	case machine.StopsWhenIdleOr:
		return fmt.Sprintf("the stop signal comes once the connections are idle, or, after %s (--empty), once the connections in its queue are accepted", why.After)
	case machine.NotSteered:
		return fmt.Sprintf("cannot send new connections to generation %d: %s", why.Generation, reasonText(why.Why))
	case machine.TooManyDrain:
		return counted(why.Generations, "old generation") + " still draining (--max-draining)"
	case machine.RunsTheSame:
		return fmt.Sprintf("the new generation runs the same executable in the same directory as generation %d: %s in %s", shown(why.Generation), why.Executable, why.Dir)
	case machine.CheckFailed:
		return "--canary-check failed: " + reasonText(why.Why)
	case machine.InstancesBeyond:
		return fmt.Sprintf("%d instances cannot be: use a number from 1 to %d", why.To, why.Most)
	case machine.OlderThan:
		return fmt.Sprintf("the instance has served for %s (--max-age)", why.Age)
	case machine.RestartPolicy:
		return "--restart " + string(why.Restart)
	case machine.TooManyRestarts:
		return fmt.Sprintf("%s within %s (--restart-limit)", counted(why.Limit.Restarts, "restart"), why.Limit.Within)
	}
	return ""
}

func socketReason(why machine.Reason) string {
	switch why := why.(type) {
	case machine.ShutDownBy:
		return suspectText(why) + " shut the listener down; connections in its queue were reset"
	case machine.NothingListens:
		return "nothing listens on " + why.Address
	case machine.CaptureRefused:
		return why.Why + " (" + capturesRemedy + ")"
	}
	return ""
}

func suspectText(s machine.ShutDownBy) string {
	switch {
	case s.Generation == 0:
		return "an app"
	case s.Ended:
		return fmt.Sprintf("generation %d, which has just ended,", shown(s.Generation))
	}
	return fmt.Sprintf("generation %d, which is draining,", shown(s.Generation))
}
