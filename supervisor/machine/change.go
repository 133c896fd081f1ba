package machine

// FilesChanged says that files have changed for which there is to be an upgrade.
type FilesChanged struct{ Which string }

func (ev FilesChanged) step(m *Machine) {
	m.say(Report{Fact: ChangeNoticed, Why: said(ev.Which)})
	UpgradeRequested{}.step(m)
}
