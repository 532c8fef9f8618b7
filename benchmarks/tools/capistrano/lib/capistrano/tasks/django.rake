# The steps that capistrano-django has (https://github.com/mattjmorrison/capistrano-django), without its Apache, its fixed
# folders and its `virtualenv` program; that project is no longer developed, and Debian does not have it.
namespace :django do
  def manage(command)
    on roles(:app) do
      execute "set -a; . #{shared_path}/environment; cd #{release_path} && venv/bin/python manage.py #{command}"
    end
  end

  # As with its `shared_virtualenv`, the requirements are installed only when they differ; and each set of them into a
  # virtualenv of its own, as a release that one goes back to would else run with the packages of a later one.
  task :virtualenv do
    on roles(:app) do
      digest = capture(:sha256sum, release_path.join("requirements.txt"))[0, 16]
      virtualenv = shared_path.join("venvs", digest)
      unless test "[ -e #{virtualenv}/complete ]"
        execute :uv, "venv --quiet --clear --python", fetch(:python), virtualenv
        within release_path do
          execute :uv, "pip install --quiet --python", virtualenv, "-r requirements.txt"
        end
        execute :touch, virtualenv.join("complete")
      end
      execute :ln, "-s", virtualenv, release_path.join("venv")
    end
  end

  task(:check) { manage "check --deploy" }
  task(:migrate) { manage "migrate --noinput" }
  task(:collectstatic) { manage "collectstatic --noinput" }
end

namespace :deploy do
  task :restart do
    on roles(:web) do
      execute :sudo, "systemctl restart", fetch(:service)
      execute :curl, "--silent --show-error --fail --output /dev/null",
              "--header 'Host: #{fetch(:domain)}'", "http://localhost/"
    end
  end
end

after "deploy:updated", "django:virtualenv"
after "django:virtualenv", "django:check"
after "django:check", "django:migrate"
after "django:migrate", "django:collectstatic"
# Where its change log has it since 3.1; a deploy and a rollback both come by here.
# https://capistranorb.com/documentation/getting-started/flow/
after "deploy:publishing", "deploy:restart"
