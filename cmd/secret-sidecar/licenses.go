package main

import (
	_ "embed" // for thirdPartyLicenses
	"fmt"

	"github.com/spf13/cobra"
)

// thirdPartyLicenses holds the licences and notices of all that the program is linked from. `make
// licenses` writes it. The program carries it, however it was installed.
//
//go:embed THIRD_PARTY_LICENSES
var thirdPartyLicenses string

func (a *app) licensesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "licenses",
		Short: "Print the licences and notices of what the program is linked from",
		Long: `Prints every module that the program is linked from, with its version and licence.
Then come the texts of all licences and notices.`,
		Example: "  secret-sidecar licenses",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(a.out, thirdPartyLicenses)
			return err
		},
	}
}
