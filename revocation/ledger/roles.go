package ledger

import (
	"fmt"
	"slices"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// Role says what a user of an embedded server may do.
type Role string

const (
	// RoleEdge follows the ledger and writes nothing, not even heartbeats.
	RoleEdge Role = "edge"
	// RoleProducer writes revocations, restorations, rechecks and heartbeats, and reads
	// nothing. Whoever has it can log anyone out. It is for programs that publish
	// by themselves: of a [Ledger], it can use PublishHeartbeat only.
	RoleProducer Role = "producer"
	// RolePublisher does both: an edge that also serves a revocation endpoint.
	RolePublisher Role = "publisher"
	// RoleOperator can also initialise the ledger and change its stream's
	// settings. It cannot delete the stream or what is in it.
	RoleOperator Role = "operator"
)

// User may connect to an embedded server, with a password or an nkey.
type User struct {
	// Name consists of letters, digits, - and _. The user's answers come to
	// subjects below "_INBOX_<name>".
	Name string
	// Password is in clear or a bcrypt hash ("$2a$…").
	Password string
	// NKey is the user's public nkey ("U…"), instead of a password.
	NKey string
	Role Role
}

func (u User) validate() error {
	switch {
	case !isName(u.Name):
		return fmt.Errorf("%w: the user's name %q has other characters than letters, digits, - and _", ErrOptions, u.Name)
	case (u.Password == "") == (u.NKey == ""):
		return fmt.Errorf("%w: user %s needs either a password or an nkey", ErrOptions, u.Name)
	case u.NKey != "" && !nkeys.IsValidPublicUserKey(u.NKey):
		// The value may be a seed, which is a secret.
		return fmt.Errorf("%w: the nkey of user %s is not a public user key (U…)", ErrOptions, u.Name)
	}
	switch u.Role {
	case RoleEdge, RoleProducer, RolePublisher, RoleOperator:
		return nil
	default:
		return fmt.Errorf("%w: user %s has the role %q, not %s, %s, %s or %s", ErrOptions, u.Name, u.Role,
			RoleEdge, RoleProducer, RolePublisher, RoleOperator)
	}
}

// permissions returns the least that the role needs. Without them a user could
// delete the stream or shorten its messages' lives: DenyDelete and DenyPurge
// stop neither.
func (u User) permissions(stream string) *server.Permissions {
	follow := []string{
		"$JS.API.STREAM.INFO." + stream,
		"$JS.API.CONSUMER.CREATE." + stream + ".*",
		"$JS.API.CONSUMER.MSG.NEXT." + stream + ".*",
		"$JS.API.DIRECT.GET." + stream,
	}
	write := []string{KindEntry.Subject(), KindRestore.Subject(), KindRecheck.Subject(), KindHeartbeat.Subject()}
	serve := []string{KindAssertion.Subject() + ".*"} // single use of clients' assertions
	operate := []string{
		KindGenesis.Subject(),
		"$JS.API.INFO",
		"$JS.API.STREAM.NAMES",
		"$JS.API.STREAM.LIST",
		"$JS.API.STREAM.CREATE." + stream,
		"$JS.API.STREAM.UPDATE." + stream,
		"$JS.API.CONSUMER.NAMES." + stream,
		"$JS.API.CONSUMER.LIST." + stream,
		"$JS.API.CONSUMER.INFO." + stream + ".*",
		"$JS.API.CONSUMER.DELETE." + stream + ".*",
	}
	var allow []string
	switch u.Role {
	case RoleEdge:
		allow = follow
	case RoleProducer:
		allow = write
	case RolePublisher:
		allow = slices.Concat(follow, write, serve)
	case RoleOperator:
		allow = slices.Concat(follow, write, serve, operate)
	}
	inboxes := []string{"_INBOX_" + u.Name + ".>"}
	if u.NKey != "" {
		inboxes = append(inboxes, "_INBOX_"+u.NKey+".>")
	}
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: allow},
		Subscribe: &server.SubjectPermission{Allow: inboxes},
	}
}
