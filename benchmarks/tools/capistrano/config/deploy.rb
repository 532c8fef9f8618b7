lock "~> 3.17"

set :application, "shop"
set :branch, ENV["COMMIT"]
set :keep_releases, 5

# One connection for all steps is what SSHKit has by itself. It gives one up that was idle for 30 seconds, as one host's is
# while another one installs; the README says how to keep it.
# https://github.com/capistrano/sshkit#connection-pooling
SSHKit::Backend::Netssh.pool.idle_timeout = 60

# The commit is no branch of its own, so a shallow clone could not fetch it; the default mirror it is.
# https://capistranorb.com/documentation/getting-started/configuration/
