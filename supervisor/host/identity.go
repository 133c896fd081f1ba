package host

import (
	"fmt"
	"os/user"
	"strconv"

	"github.com/gracerun/grace/childproc"
)

// addIdentity looks the user and group up and sets what a login would set.
func (l *LaunchSpec) addIdentity(name, group string) error {
	if name == "" && group == "" {
		return nil
	}
	u, err := findUser(name)
	if err != nil {
		return err
	}
	id := &childproc.Identity{}
	if id.UID, err = strconv.Atoi(u.Uid); err != nil {
		return fmt.Errorf("cannot run as user %q: the uid is %q", name, u.Uid)
	}
	if id.GID, id.Groups, err = findGroups(u, group); err != nil {
		return err
	}
	l.Identity = id
	if u.Username != "" && name != "" {
		l.Env = append(l.Env, "USER="+u.Username, "LOGNAME="+u.Username, "HOME="+u.HomeDir)
	}
	return nil
}

// FindIdentity gives whom an app runs as, by names or numbers; nil if neither is
// given, which leaves it grace's own.
func FindIdentity(user, group string) (*childproc.Identity, error) {
	var l LaunchSpec
	err := l.addIdentity(user, group)
	return l.Identity, err
}

// findUser takes a number that no name belongs to, as containers have them.
func findUser(name string) (*user.User, error) {
	if name == "" {
		return user.Current()
	}
	if u, err := user.Lookup(name); err == nil {
		return u, nil
	}
	if u, err := user.LookupId(name); err == nil {
		return u, nil
	}
	if _, err := strconv.ParseUint(name, 10, 31); err == nil {
		return &user.User{Uid: name, Gid: name}, nil
	}
	return nil, fmt.Errorf("cannot run as user %q: there is no such user", name)
}

func findGroups(u *user.User, group string) (int, []int, error) {
	if group != "" {
		gid, err := findGroup(group)
		return gid, []int{gid}, err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return 0, nil, fmt.Errorf("cannot run as user %q: the gid is %q", u.Username, u.Gid)
	}
	if u.Username == "" {
		return gid, []int{gid}, nil
	}
	ids, err := u.GroupIds()
	if err != nil {
		return 0, nil, fmt.Errorf("cannot run as user %q: cannot read the user's groups: %w", u.Username, err)
	}
	groups := make([]int, len(ids))
	for i, id := range ids {
		if groups[i], err = strconv.Atoi(id); err != nil {
			return 0, nil, fmt.Errorf("cannot run as user %q: one of the user's groups has the gid %q", u.Username, id)
		}
	}
	return gid, groups, nil
}

func findGroup(name string) (int, error) {
	if g, err := user.LookupGroup(name); err == nil {
		name = g.Gid
	}
	gid, err := strconv.ParseUint(name, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("cannot run as group %q: there is no such group", name)
	}
	return int(gid), nil
}
