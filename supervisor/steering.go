package supervisor

func (a *apps) steer(generation int) {}

func (a *apps) observe(o observe) {}
